# What .dockerignore leaves out is not there for a copy.
FROM busybox
COPY . /all/
COPY deep /deep/
