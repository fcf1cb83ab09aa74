# What is in the way, what is removed, what is put back.
FROM busybox
RUN mkdir -p /d/sub /e && echo 1 >/d/a && echo 2 >/d/sub/b && echo 3 >/e/c && ln -s /d /link && chmod 4755 /d/a
RUN rm -r /d/sub && rm /e/c && mknod /null c 1 3 && mkfifo /fifo
COPY text/one.txt /d/sub
COPY text /e
COPY text/two.txt /link/through
RUN rm /null /d/sub && mkdir /d/sub && echo again >/d/sub/b && ln /d/sub/b /d/hard && chown -h app /link
ADD text/one.txt /d/a
