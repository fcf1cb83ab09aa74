# Who owns what a build makes.
FROM busybox
USER app
RUN touch /tmp/by-app && id -u >/tmp/uid
WORKDIR /made/for/app
COPY text/one.txt /tmp/copied
USER 1234
RUN id -u >/tmp/number
USER app:wheel
RUN id -g >/tmp/group && umask >/tmp/umask
USER root
RUN chmod 2775 /made && chown app:wheel /made
