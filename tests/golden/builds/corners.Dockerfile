# What is rarely written: special parameters, ports as for publishing, links to nowhere, triggers of two generations.
FROM busybox AS first
ENV A=$$x B=$? C=$12 D="it's" E='$A' F=a=b G=\\$A
EXPOSE 8080:80 127.0.0.1:53:54/udp 90-91
RUN ln -s /nowhere /dangling && ln -s ../gone/deep /up
COPY text/one.txt /dangling
COPY text /up
COPY text/two.txt /up/further/two
ONBUILD ENV WHO=first
ONBUILD RUN echo $WHO >>/generations
FROM first AS second
ONBUILD RUN echo second >>/generations
FROM second
WORKDIR /dangling2
WORKDIR ..
WORKDIR z/./q/
RUN pwd >/where
HEALTHCHECK --timeout=1m30s CMD echo  "hi  there" $X
