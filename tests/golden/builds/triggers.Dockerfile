# ONBUILD is kept for the child, and used up by it.
FROM busybox AS parent
ONBUILD ENV FROM_PARENT=yes
ONBUILD COPY text/one.txt /brought
ONBUILD RUN echo "$FROM_PARENT" >/triggered
RUN echo parent >/parent
FROM parent
RUN cat /triggered >/seen
