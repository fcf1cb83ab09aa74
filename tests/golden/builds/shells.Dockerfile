# A comment first: the escape stays a backslash.
# escape=`
FROM busybox
RUN echo one && \
    # a comment between
    echo two >/lines
SHELL ["/bin/sh", "-xc"]
RUN echo shell >/shell 2>/trace
RUN ["/bin/sh", "-c", "echo exec >/exec; echo $0 >>/exec"]
CMD ["sh", "-c", "echo \"$HOME\""]
