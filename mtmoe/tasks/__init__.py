"""fairseq's tasks; `--user-dir mtmoe` imports each file of this folder."""
