# escape=`
FROM busybox
ENV A=x`
y B=c:`\d C=`$A D=\n
RUN echo "$A" >/a && `
    echo "$B" >/b
COPY text/one.txt c:/
