"""fairseq's models; `--user-dir mtmoe` imports each file of this folder."""
