Administración de %(app)s
%(count)s %(name)s fué modificado con éxito.
%(count)s %(name)s fueron modificados con éxito.
hace %(count)s horas
%(count)s horas a partir de ahora
hace %(count)s minutos
%(count)s minutos a partir de ahora
hace %(count)s segundos
%(count)s segundos a partir de ahora
%(counter)s resultado
%(counter)s resultados
%(ct_name)s objetos no tienen un método get_absolute_url()
%(datetime)s no pudo ser interpretado en la zona horaria %(current_timezone)s; podría ser ambiguo o no existir.
hace %(delta)s
%(delta)s desde ahora
%(field_label)s debe ser único para %(date_field_label)s %(lookup_type)s.
relación %(from)s-%(to)s
relaciones %(from)s-%(to)s
Ya existe %(model_name)s con este %(field_label)s.
%(model_name)s con este %(field_labels)s ya existe.
el objeto %(name)s con clave primaria %(key)r no existe.
%(name)s con el ID “%(key)s” no existe. ¿Quizás fue eliminado?
%(num)d día
%(num)d días
%(num)d hora
%(num)d horas
%(num)d mes
%(num)d meses
%(num)d semana
%(num)d semanas
%(num)d año
%(num)d años
%(sel)s de %(cnt)s seleccionados
%(total_count)s seleccionado
%(value)s millardos
%(value)s quintillardos
%(value)s gúgoles
%(value)s millones
%(value)s quintillón
%(value)s cuatrillardos
%(value)s billardos
%(value)s trillón
%(value)s cuatrillón
%(value)s billón
%s (atributo de %s)
%s (clase incorporada)
%s (variable incorporada)
%s (clase en %s)
%s (variable global o constante)
%s (en el módulo %s)
%s no parece ser un objeto urlpattern
%s opción seleccionada no visible
%s opciones seleccionadas no visibles
%s() (método de clase de %s)
%s() (método de %s)
%s() (método estático de %s)
%s() (función incorporada)
%s() (clase)
%s() (en el módulo %s)
(Campo oculto %(name)s) *%(error)s
(La <<entrada original>> se encuentra en %s, línea %d.)
(obsoleto)
(no existe)
seleccionados 0 de %(cnt)s
<h1>Todos los módulos para los cuales disponen código</h1>
<h1>Código fuente para %s</h1>
Un objeto JSON
Ya existe un usuario con este nombre.
Sobre este documento
Acción:
Añadir
Añadir %(name)s
Añadir %s
Añadir otro %(model)s
Agregar %(verbose_name)s adicional.
Añadir vínculo
Agregado {name} “{object}”.
Agregado “%(object)s”.
Añadido.
Agregado:
Añadido
Documentación Administrativa
Opciones avanzadas
Albanés
Árabe argelino
Todo
%(total_count)s seleccionados en total
Todas las fechas
Ocurrió un error al transformar la geometria al SRID de la geometria del campo de formulario.
Cualquier fecha
Aplicación %(app_label)r no encontrada
Árabe
¿Está seguro de que quiere borrar los %(object_name)s "%(escaped_object)s"? Se borrarán los siguientes objetos relacionados:
¿Está usted seguro que quiere eliminar el %(objects_name)s seleccionado? Todos los siguientes objetos y sus elementos relacionados serán borrados:
Español de Argentina
Argumentos
Armenio
Asturiano
Inglés australiano
Autenticación y autorización
Autor:
Lista de cambios generada automáticamente en la versión %(version)s
%s Disponibles
Azerbaiyán
Volver a la documentación
Volver a la documentación de modelos
Volver a la documentación de vistas
Bielorruso
Entero grande (8 bytes)
Booleano (Verdadero o Falso)
Booleano (Verdadero, Falso o Nulo)
Bosnio
Portugués de Brasil
Guía-rastro
Inglés británico
Filtros integrados
Etiquetas integradas
Búlgaro
Birmano
Por %(filter_title)s
Cambios en la API C
La verificación CSRF ha fallado. Solicitud abortada.
Cancelar
No se puede eliminar %(name)s
No se encuentra directorio fuente (%s)
Prudencia
Kurdo central (Sorani)
Modificar
Modificar %s
Histórico de modificaciones: %s
Cambiar mi contraseña
Cambiar o ver el enlace de la lista
Cambiar contraseña
Cambiar contraseña: %s
Cambiar %(model)s seleccionados
Cambiar:
Distinto en la versión %s
Cambios en {fields} para {name} “{object}”.
Modificado {fields}.
Modificado “%(object)s” — %(changes)s
Modificado:
Elija una Fecha
Elija una Hora
Elija una hora
%s elegidos
Limpiar
Borrar todos los filtros
Limpiar selección
Pulse aquí para seleccionar los objetos a través de todas las páginas
Cerrar
Código del autor:
Contraer barra lateral
Español de Colombia
Enteros separados por coma
Índice de contenidos completo
Valor de configuración %r ya presente
Confirme contraseña:
Conéctate, obtén ayuda o contribuye
No se cumple la restricción "%(name)s".
Tipos de contenido
El tipo de contenido %(ct_id)s del objeto %(obj_id)s no existe
El objeto de tipo de contenido %(ct_id)s no tiene ningún modelo asociado.
Contenidos
Contexto:
No se pududieron cargar los datos JSON.
Croata
Actualmente
Actualmente:
Checo
Danés
Error en la base de datos
Fecha (con hora)
Fecha (sin hora)
Fecha fuera de rango
Fecha/hora
Fecha:
Ventana de depuración (valores serializados)
Dic
dic.
diciembre
Número decimal
Eliminar
Borrar todos los elementos
Eliminar múltiples objetos.
Eliminar %(model)s seleccionada/o
Eliminar %(verbose_name_plural)s seleccionado/s
¿Eliminar?
Eliminado {name} “{object}”.
Eliminado “%(object)s.”
Eliminado:
La eliminación de %(class_name)s %(instance)s requeriría eliminar los siguientes objetos relacionados protegidos: %(related_objects)s
La eliminación de %(object_name)s %(escaped_object)s requeriría eliminar los siguientes objetos relacionados protegidos:
Eliminar el %(object_name)s '%(escaped_object)s' provocaría la eliminación de objetos relacionados, pero su cuenta no tiene permiso para borrar los siguientes tipos de objetos:
La eliminación de %(objects_name)s seleccionado requeriría el borrado de los siguientes objetos protegidos relacionados:
La eliminación del %(objects_name)s seleccionado resultaría en el borrado de objetos relacionados, pero su cuenta no tiene permisos para borrar los siguientes tipos de objetos:
Borrado
Obsoleto
Obsoleto desde la versión %s
Indica que este usuario tiene todos los permisos sin asignárselos explícitamente.
Indica si el usuario puede entrar en este sitio de administración.
Indica si el usuario debe ser tratado como activo. Desmarque esta opción en lugar de borrar la cuenta.
Los índices de directorio no están permitidos.
Comunidad Django
Documentación de Django
Administración de Django
Sitio de administración de Django
Bookmarklets de documentación
Documentación para esta página
Duración
Holandés
Cada página en el sitio público se genera a través de una vista. La vista define que plantilla se usa para generar la página y que objetos están disponibles para esa plantilla.
Correo electrónico
Correo electrónico
Correo electrónico:
Vacío
Lista vacía y “%(class_name)s.allow_empty” es Falso
Espacio de nombres vacío
Inglés
Asegúrese de que el límite inferior del rango no sea inferior a %(limit_value)s.
Asegúrese de que el límite superior del rango no sea mayor que %(limit_value)s.
Asegúrese de que no haya más de %(max)s dígito decimal.
Asegúrese de que no haya más de %(max)s dígitos decimales.
Asegúrese de que no haya más de %(max)s dígito antes del punto decimal
Asegúrese de que no hay más de %(max)s dígito en total.
Asegúrese de que no haya más de %(max)s dígitos antes del punto decimal.
Asegúrese de que no haya más de %(max)s dígitos en total.
Asegúrese de que este nombre de archivo tenga como máximo %(max)d caracter (tiene %(length)d).
Asegúrese de que este nombre de archivo tenga como máximo %(max)d carácter(es) (tiene %(length)d).
Asegúrese de que este valor tenga al menos %(limit_value)d caracter (tiene %(show_value)d).
Asegúrese de que este valor tenga al menos %(limit_value)d carácter(es) (tiene%(show_value)d).
Asegúrese de que este valor tenga menos de %(limit_value)d caracter (tiene %(show_value)d).
Asegúrese de que este valor tenga menos de %(limit_value)d caracteres (tiene %(show_value)d).
Asegúrese de que este valor es %(limit_value)s (actualmente es %(show_value)s).
Asegúrese de que este valor sea un múltiplo del tamaño del paso%(limit_value)s, comenzando en%(offset)s, p.ej. %(offset)s, %(valid_value1)s, %(valid_value2)s, etcétera.
Asegúrese de que este valor es múltiplo de %(limit_value)s.
Asegúrese de que este valor es mayor o igual a %(limit_value)s.
Asegúrese de que este valor es menor o igual a %(limit_value)s.
Introduzca un valor completo.
Introduzca una lista de valores.
Introduzca una nueva contraseña para el usuario <strong>%(username)s</strong>.
Introduzca un número.
Ingrese una dirección de %(protocol)s válida.
Ingresa un JSON válido.
Introduzca una URL válida.
Introduzca un UUID válido.
Introduzca una fecha válida.
Introduzca una fecha/hora válida.
Ingrese un nombre de dominio válido.
Introduzca una duración válida.
Introduzca una dirección de correo electrónico válida.
Introduzca un número entero válido.
Introduzca una hora válida.
Introduza un nombre de usuario válido. Este valor puede contener únicamente letras, números y los caracteres @/./+/-/_
Introduzca un nombre de usuario válido. Este valor solo puede contener letras mayúsculas y minúsculas de la A la Z (excepto las acentuadas), números y los caracteres @/./+/-/_.
Introduzca un valor válido.
Introduzca un 'slug' válido, consistente en letras, números, guiones bajos o medios de Unicode.
Introduzca un 'slug' válido, consistente en letras, números, guiones bajos o medios.
Introduzca un número entero.
Escriba la nueva contraseña
Introduzca sólo dígitos separados por comas.
Para verificar, introduzca la misma contraseña anterior.
Ingrese dos números.
Ingrese dos fechas/horas válidas.
Ingrese dos fechas válidas.
Introduzca dos valores válidos.
Ingrese dos números enteros.
Estonio
Evento %r ya presente
Ejemplo: “/about/contact/”. Asegúrese de tener barras al principio y al final.
Ejemplo: "/about/contact”. Asegúrese de tener una barra al principio.
Ejemplo: "flatpages/contact_page.html". Si no se proporciona, el sistema utilizará "flatpages/default.html".
Expandir barra lateral
Extensión de campo agregado
V
febrero
Campo
Campo de tipo: %(field_type)s
Campos
Archivo
La extensión de archivo “%(extension)s” no esta permitida. Las extensiones permitidas son: %(allowed_extensions)s.
Ruta de fichero
Filtrar elementos de navegación
Filtros
Los filtros son acciones que se pueden aplicar a variables en una plantilla para alterar el resultado.
Finés
En el sitio %(site)s ya hay una pagina estática con la url %(url)s
Número en coma flotante
Notas a pie de página
Prohibido
Clave foránea (tipo determinado por el campo relacionado)
¿Olvidó sus credenciales de inicio de sesión?
¿Olvidaste tu contraseña? Ingrese su dirección de correo electrónico a continuación y le enviaremos las instrucciones para configurar una nueva.
Francés
vie
viernes
Frisón
Índice completo en una página
Los futuros %(verbose_name_plural)s no están disponibles porque %(class_name)s.allow_future es Falso.
Gallego
Índice General
Colección de "Geometry"
Georgiano
Alemán
Comienza con Django
Índice Global de Módulos
Ir a
Griego
Tiene fecha
Hebreo
Ocultar coincidencias de la búsqueda
Ocultar recuentos
Consejo
Histórico
Mantenga presionado "Control" o "Comando" en una Mac, para seleccionar más de uno.
Inicio
Húngaro
Dirección IP
Dirección IPv4
IPv4 o IPv6
Islandés
Si está marcado, sólo los usuarios registrados podrán ver la página.
Si esta utilizando la etiqueta <meta name="referrer" content="no-referrer"> o incluyendo el encabezado "Referrer-Policy: no-referrer", elimínelos. La protección CSRF requiere que el encabezado "Referer" realice una comprobación estricta del referente. Si le preocupa la privacidad, utilice alternativas como <a rel="noreferrer" …> para los enlaces a sitios de terceros.
Si no recibe un correo electrónico, asegúrese de haber ingresado la dirección con la que se registró y verifique su carpeta de correo no deseado.
Si ha configurado su navegador para deshabilitar las cookies, vuelva a habilitarlas, al menos para este sitio o para solicitudes del "mismo origen".
Si ha configurado su navegador para deshabilitar los encabezados "Referer", vuelva a habilitarlos, al menos para este sitio, o para conexiones HTTPS, o para solicitudes del "mismo origen".
Fechas importantes
Índice de %(directory)s
Índice alfabético de páginas
Índices y tablas:
Indonesio
La entrada debe ser un diccionario JSON
Entero
Cadena de fecha no valida “%(datestr)s” dado el formato “%(format)s”
Tipo de geometría inválido.
Valor de geometría inválido.
Página inválida (%(page_number)s): %(message)s
Formato de clave incorrecto o algoritmo de hash desconocido.
Irlandés
Italiano
El elemento %(nth)s del arreglo no se pudo validar:
Se deben seleccionar elementos para poder realizar acciones sobre estos. No se han modificado elementos.
enero
Japonés
julio
Ir al espacio de nombres
Lo lleva desde cualquier página a la documentación de la vista que la genera.
junio
Coreano
Kirguís
Actualizado por última vez en %(last_updated)s.
Letón
Cambios en la biblioteca
Cadena de línea
La lista contiene %(show_value)d elemento, no debería contener menos de %(limit_value)d.
La lista contiene %(show_value)d elemento, no debería contener más de %(limit_value)d.
La lista contiene %(show_value)d elementos, no debería contener menos de %(limit_value)d.
La lista contiene %(show_value)d elementos, no debería contener más de %(limit_value)d.
Lista de todas la etiquetas de plantillas y sus funciones.
Lista %s
Lituano
Iniciar sesión
Iniciar sesión de nuevo
Cerrar sesión
Objeto de registro de Log
Sesión terminada
Buscar
Bajo sorbio
Luxenburgués
L
Macedonio
Malayo
Los datos de ManagementForm faltan o han sido alterados. Campos que faltan: %(field_names)s. Es posible que deba presentar un informe de error si el problema persiste.
Relación muchos-a-muchos
Mapa de cadenas a cadenas/nulos
marzo
mayo
Método
Métodos con argumentos
Español de México
Medianoche
El modelo %(model_name)r no se ha encontrado en la aplicación %(app_label)r
Documentación de modelos
Grupo de modelos
Nombre del modelo
Modelos
Los modelos son descripciones de todos los objetos en el sistema y sus campos asociados. Cada modelo tienen una lista de campos a los que se puede acceder como variables de plantilla
Modelos en la aplicación %(name)s
Índice de Módulos
Autor del módulo:
Código de módulo
Nivel de módulo
lun
lunes
Mongol
Más información disponible si se establece DEBUG=True.
Polígono múltiple
Cadena de línea múltiple
Punto múltiple
Mis acciones
Los arreglos anidados deben tener la misma longitud.
Contraseña nueva
Contraseña nueva (confirmación)
Contraseña nueva:
Próximo tema
Español de Nicaragua
No se encontró ningún %(verbose_name)s coincidente con la consulta
No %(verbose_name_plural)s disponibles
No se seleccionó ninguna acción.
Ningún constructor seleccionado, utilizando el valor predeterminado: html
Sin fecha
No se ha indicado el día
No se han registrado canales de contenido.
No ha cambiado ningún campo.
No se ha enviado ningún fichero
No se ha enviado ningún fichero. Compruebe el tipo de codificación en el formulario.
No se indico ningún valor de geometría.
No se ha indicado el mes
No se ha establecido la clave.
No se ha indicado la semana
No se ha indicado el año
No, llévame atrás
Ninguno disponible
Mediodía
Bokmål noruego
Nynorsk
No vacío
Nota: Usted esta a %s horas por delante de la hora del servidor.
Nota: Usted esta a %s hora de retraso de tiempo de servidor.
Nota: Usted va %s horas por delante de la hora del servidor.
Nota: Usted va %s horas por detrás de la hora del servidor.
Ahora
Los caracteres nulos no están permitidos.
Objetos
octubre
Contraseña antigua
Relación uno-a-uno
Orden
Excepción original:
Osetio
Otros cambios
Resumen
Resumen: código de modulo
La página no es la "última", ni se puede convertir a un entero.
Página no encontrada
Parámetros
Contraseña
Cambio de contraseña
Contraseña cambiada correctamente
La contraseña se ha cambiado con éxito.
Contraseña (confirmación)
Restablecer contraseña
Restablecimiento de contraseña completado
Confirmación de restablecimiento de contraseña
Contraseña restablecida en %(site_name)s
Restablecimiento de contraseña enviado
Restablecimiento de contraseñas fallido
Últimos 7 días
Persa
Información personal
Por favor, active JavaScript para habilitar la funcionalidad de búsqueda.
Por favor, pida al administrador que instale <a href="%(link)s">docutils</a>.
Por favor corrija el dato duplicado para %(field)s, ya que debe ser único.
Por favor, corrija el dato duplicado para %(field)s.
Por favor corrija los datos duplicados para %(field_name)s ya que debe ser único para %(lookup)s en %(date_field)s.
Por favor, corrija los valores duplicados abajo.
Por favor, corrija el siguiente error.
Por favor, corrija los siguientes errores.
Por favor envíe un fichero o marque la casilla de limpiar, pero no ambos.
Por favor, introduzca un %(username)s y clave correctos. Observe que ambos campos pueden ser sensibles a mayúsculas.
Por favor introduzca el %(username)s y la clave correctos para una cuenta de personal. Observe que ambos campos pueden ser sensibles a mayúsculas.
Por favor, introduzca su contraseña nueva dos veces para verificar que la ha escrito correctamente.
Ingrese su contraseña anterior, por razones de seguridad, y luego ingrese su nueva contraseña dos veces para que podamos verificar que la ingresó correctamente.
Por favor, vaya a la página siguiente y escoja una nueva contraseña.
Por favor, instale docutils
Por favor, envíe %(num)d formulario como mínimo.
Por favor, envíe %(num)d formularios como mínimo.
Por favor, envíe %(num)d formulario como máximo.
Por favor, envíe %(num)d formularios como máximo.
Polaco
Cerrando ventana emergente...
Portugués
Entero grande positivo
Entero positivo
Entero positivo corto
Extensiones de PostgreSQL
Preparando búsqueda...
Tema anterior
Panyabí
El nombre del lexer de pigmentos %r se desconoce
Índice de Módulos Python
Búsqueda rápida
Muestra
Campo Raster
Datos binarios en bruto
Acciones recientes
Redirecciones
Eliminar
Eliminar del ordenación
Requerido. 150 carácteres como máximo. Únicamente letras, dígitos y @/./+/-/_
Restablecer mi contraseña
Tipo del valor devuelto
Devuelve
Rumano
Ejecutar la acción seleccionada
Ejecutando Sphinx v%s
Ruso
D
sáb
sábado
Guardar
Guardar y añadir otro
Guardar y continuar editando
Guardar y ver
Guardar como nuevo
Gaélico Escocés
Búsqueda
Buscar en %(docstitle)s
Página de Búsqueda
Resultados de la búsqueda
Buscar ruta de la plantilla <q>%(name)s</q>:
Buscar en %(docstitle)s
Buscando
Autor de la sección:
Ver también
Seleccione %s
Seleccione %s a modificar
Seleccione %s para ver
Escoja una opción válida. %(value)s no es una de las opciones disponibles.
Escoja una opción válida. Esa opción no está entre las disponibles.
Seleccionar todos los %(total_count)s %(module_name)s
Seleccione todos los objetos de esta página para una acción
Seleccione este objeto para una acción - {}
Serbio
Serbio latino
Error de servidor <em>(500)</em>
Error del servidor
Error del servidor (500)
Establecer contraseña
Mostrar el código
Mostrar todo
Mostrar recuentos
Barra lateral
Chino simplificado
Mapas del sitio
Sitio administrativo
Saltar al contenido principal
Eslovaco
Esloveno
El slug %r no está registrado.
Slug (hasta %(max_length)s)
Entero corto
Faltan algunas claves: %(keys)s
Se facilitaron algunas claves desconocidas: %(keys)s
Algo anda mal con la instalación de su base de datos. Asegúrese de que se hayan creado las tablas de base de datos adecuadas y asegúrese de que el usuario adecuado pueda leer la base de datos.
Prioridad de la ordenación: %(priority_number)s
Directorio fuente y directorio destino no pueden ser idénticos
Español
Permisos específicos para este usuario.
Empiece a escribir para filtrar…
Archivos estáticos
Cadena (ilimitado)
Cadena (máximo %(max_length)s)
Eliminado/s %(count)d %(items)s satisfactoriamente.
Resumen
dom
domingo
Sueco
Símbolos
M
Tabla %s
Tabla de contenido
Tayiko
Parametros de Plantilla
Documentación de los filtros de plantilla
Filtros de plantilla
Documentación de las etiquetas de plantilla
Etiquetas de plantilla
Tailandés
Gracias por pasar un buen rato con el sitio web hoy.
¡Gracias por usar nuestro sitio!
Esa página no contiene resultados
Este número de página es menor que 1
Este número de página no es un entero
El%(name)s “%(obj)s” fue eliminado con éxito.
El equipo de %(site_name)s
El sistema de documentación del administrador requiere la librería de Python <a href="%(link)s">docutils</a>.
El campo GIS base.
El campo base Geometry — coincide con el tipo OpenGIS Specification Geometry.
El nombre de dominio no puede contener espacios ni tabulaciones
Los grupos a los que pertenece este usuario. Un usuario tendrá todos los permisos asignados a cada uno de sus grupos.
El valor en línea no coincide con la instancia padre.
¡La instalación funcionó con éxito! ¡Felicitaciones!
El número de días debe estar entre {min_days} y {max_days}.
La contraseña es demasiado similar a la de %(verbose_name)s.
El enlace de restablecimiento de contraseña era inválido, seguramente porque se haya usado antes. Por favor, solicite un nuevo restablecimiento de contraseña.
El comienzo del rango no puede exceder su final.
El fichero enviado está vacío.
Los dos campos de contraseña no coinciden.
El valor de “%(key)s” no es una cadena ni es nulo.
El {name} “{obj}” fue agregado correctamente.
El {name} “{obj}” se cambió correctamente.
El {name} “{obj}” se cambió correctamente. Puede editarlo nuevamente a continuación.
Hubo un error. Se ha informado a los administradores del sitio por correo electrónico y debería solucionarse en breve. Gracias por su paciencia.
Esta página
Esta cuenta está inactiva.
Esto puede ser una ruta absoluta (como se indica arriba) o una URL completa que comience con un esquema como "https: //".
Este campo no puede estar vacío.
Este campo no puede ser nulo.
Este campo es obligatorio.
No es una dirección IPv6 válida.
Este mes
Este objeto no tiene un historial de cambios. Probablemente no se agregó a través de este sitio de administración.
Esta contraseña es completamente numérica.
Esta contraseña es demasiado común.
La contraseña es demasiado corta. Debe contener por lo menos %d carácter.
La contraseña es demasiado corta. Debe contener por lo menos %d caracteres.
Este proyecto necesita al menos Sphinx v%s y por lo tanto no se puede construir con esta versión.
Esta debe ser una ruta absoluta, excluyendo el nombre de dominio. Ejemplo: “/eventos/búsqueda/”.
Este valor solo puede contener letras, números, puntos, guiones bajos o medios, barras o tildes.
Este año
Lanzamientos
jue
Jue
jueves
Hora
Hora:
Truco
Para instalar bookmarklets, arrastre el enlace a su barra de favoritos, o pulse con el botón derecho el enlace y añádalo a sus favoritos. Ahora puede seleccionar el bookmarklet desde cualquier página del sitio.
Para utilizar estos filtros, incluya <code>%(code)s</code> en su plantilla antes de usar el filtro.
Para utilizar estas etiquetas, incluya <code>%(code)s</code> en su plantilla antes de utilizar la etiqueta.
Hoy
Por hacer
Activar navegación
Activar la ordenación
Cambiar tema (tema actual: automático)
Cambiar tema (tema actual: oscuro)
Cambiar tema (tema actual: claro)
Mañana
Herramientas para el navegador para acceder a funciones de administración rápidamente.
Temas, referencias, &amp; como hacer
Chino tradicional
mar
martes
Turco
Turcomanos
Tutorial: Una aplicación de encuesta
Escriba en este cuadro para filtrar la lista de %s disponibles
Escriba en este cuadro para filtrar la lista de %s seleccionados.
A la URL le falta la barra inicial.
A la URL le falta la barra final.
Ucraniano
Desconocido
Contenido desconocido
Nombre de evento desconocido: %s
Envíe una imagen válida. El fichero que ha enviado no era una imagen o se trataba de una imagen corrupta.
Alto sorbio
Usuario
Uigur
Uzbeko
Valor %(value)r no es una opción válida.
El valor debe ser un objeto JSON válido.
Español de Venezuela
Vietnamita
Vista
Vista %s
Ve <a href="https://docs.djangoproject.com/en/%(version)s/releases/" target="_blank" rel="noopener">la notas de la versión</a> de Django %(version)s
Documentación de vistas
Visualizar función: <code>%(full_name)s</code>. Nombre: <code>%(url_name)s</code>.
Ver en el sitio
Ver seleccionado %(model)s
Ver el sitio
Visualizaciones por espacio de nombres vacío
Visualizaciones por espacio de nombres %(name)s
M
Advertencia
mié
miércoles
¡Bienvenido! Este es
Bienvenidos,
Galés
Lo sentimos, pero no se pudo encontrar la página solicitada.
Le enviamos instrucciones por correo electrónico para configurar su contraseña, si existe una cuenta con el correo electrónico que ingresó. Debería recibirlos en breve.
Sí
Si, estoy seguro
Ayer
Se ha autenticado como %(username)s, pero no está autorizado a acceder a esta página. ¿Desea autenticarse con una cuenta diferente?
Estás viendo este mensaje porque este sitio HTTPS requiere que tu navegador web envíe un "encabezado de referencia", pero no se envió ninguno. Este encabezado es necesario por razones de seguridad, para garantizar que su navegador no sea secuestrado por terceros.
Estás viendo este mensaje porqué esta web requiere una cookie CSRF cuando se envían formularios. Esta cookie se necesita por razones de seguridad, para asegurar que tu navegador no ha sido comprometido por terceras partes.
Estás viendo esta página porque <a href="https://docs.djangoproject.com/en/%(version)s/ref/settings/#debug" target="_blank" rel="noopener">DEBUG=True</a> está en su archivo de configuración y no ha configurado ninguna URL.
No cuenta con permiso para ver ni editar nada.
Ha seleccionado una acción y no ha realizado ningún cambio en campos individuales. Probablemente esté buscando el botón 'Ir' en lugar del botón 'Guardar'.
Ha seleccionado una acción, pero aún no ha guardado los cambios en los campos individuales. Haga clic en Aceptar para guardar. Deberá volver a ejecutar la acción.
Tiene cambios sin guardar en campos editables individuales. Si ejecuta una acción, los cambios no guardados se perderán.
Puede volverlo a editar otra vez a continuación.
Ha recibido este correo electrónico porque ha solicitado restablecer la contraseña para su cuenta en %(site_name)s.
Su contraseña antigua es incorrecta. Por favor, vuelva a introducirla.
Su contraseña no puede ser una clave utilizada comúnmente.
Su contraseña no puede ser completamente numérica.
Su contraseña no puede asemejarse tanto a su otra información personal.
Su contraseña ha sido establecida. Ahora puede continuar e iniciar sesión.
Su contraseña debe contener al menos %(min_length)d caracter.
Su contraseña debe contener al menos %(min_length)d caracteres.
Su contraseña ha sido cambiada.
Su búsqueda no coincide con ningún documentos. Por favor, asegúrese de que todas las palabras estén correctamente escritas y que usted allá seleccionado las suficientes categorías.
[gráfica: %s]
[gráfica]
hace un minuto
un minuto a partir de ahora
hace un segundo
un segundo a partir de ahora
marca de acción
hora de la acción
activo
algoritmo
todo %s
todas las funciones, clases, términos
hace una hora
una hora a partir de ahora
y
atributo
tamaño de bloque
puede ser muy grande
mensaje de cambio
suma de verificación
clase
método de la clase
directorio de configuración no contiene un archivo conf.py (%s)
contenido
tipo de contenido
tipos de contenido
proviene de la página anterior
continúe en la próxima página
dato
fecha de alta
dic
nombre a mostrar
nombre de dominio
hecho
ocho
dirección de correo electrónico
habilitar comentarios
entradas
entrada
variables de entorno
variables de entorno; %s
fecha de caducidad
fallo: %s
nombre
cinco
cuatro
función
termino de glosario
gramática simbólica
grupo
grupos
número no válido %r de valor de configuración %r, haciendo caso omiso
iteraciones
último inicio de sesión
apellidos
actualizado por última vez el
muestra todas las secciones y subsecciones
cargando traducciones [%s]...
entradas de registro
entrada de registro
coste de memoria
método
medianoche
modelo:
siguiente
próximo capítulo
nueve
mediodía
no disponible para mensajes incorporados
ahora
número de %s
id del objeto
repr del objeto
uno
o
entrada original
paralelismo
contraseña
anterior
capítulo anterior
primary_domain %r no fue encontrado, se ignora.
opción de programa
nombre de la clase modelo de python
acceso rápido a todos los módulos
redirección
redireccionar desde
redireccionar a
redirecciones
etiqueta de referencia
Se requiere registro
los objetos relacionados `%(app_label)s.%(object_name)s`
buscar
buscar en esta documentación
ver %s
ver también %s
datos de sesión
clave de sesión
siete
es staff
método estático
estado de superusuario
nombre de plantilla
la extensión de %s no declara si es seguro para la lectura en paralelo, asumiendo que no es - consulte con el autor de la extensión para comprobar y hacer explícito
la extensión %s no declara si es seguro para la escritura paralela, suponiendo que no lo sea - solicite al autor de la extensión que lo verifique y haga explicito
la documentación para
el objeto relacionado `%(app_label)s.%(data_type)s`
tres
coste de tiempo
título
hoy
mañana
dos
usuario
permisos de usuario
nombre de usuario
usuarios
variedad
factor trabajo
sí,no,quizás
ayer
“%(path)s” no existe
“%(pk)s” no es un valor válido.
“%(value)s” no es un UUID válido.
“%(value)s” : el valor tiene un formato de fecha inválido. Debería estar en el formato YYYY-MM-DD.
“%(value)s”: el valor tiene un formato inválido. Debería estar en el formato HH:MM[:ss[.uuuuuu]].
“%(value)s”: el valor tiene un formato inválido. Debería estar en el formato YYYY-MM-DD HH:MM[:ss[.uuuuuu]][TZ].
“%(value)s”: el valor tiene un formato inválido. Debería estar en el formato [DD] [[HH:]MM:]ss[.uuuuuu]
“%(value)s” : el valor tiene el formato correcto (HH:MM[:ss[.uuuuuu]]) pero es un tiempo inválido.
“%(value)s”: el valor tiene el formato correcto (YYYY-MM-DD HH:MM[:ss[.uuuuuu]][TZ]) pero es una fecha inválida.
“%(value)s” : el valor tiene el formato correcto (YYYY-MM-DD) pero es una fecha inválida.
“%(value)s”: el valor debe ser un número decimal.
“%(value)s”: el valor debería ser un número de coma flotante.
“%(value)s”: el valor debería ser un numero entero
“%(value)s”: el valor debería ser None, Verdadero o Falso.
“%(value)s”: el valor debe ser Verdadero o Falso.
“%(value)s”: el valor debe ser Verdadero, Falso o Nulo.
