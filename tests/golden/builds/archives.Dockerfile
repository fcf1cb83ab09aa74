# ADD unpacks archives of the context, COPY does not.
FROM busybox
ADD archive.tar.gz /unpacked/
ADD archive.tar.gz text/one.txt /both/
COPY archive.tar.gz /kept/
ADD text/one.txt /plain
ADD not-an-archive.tar.gz /odd/
