# Where what is copied ends up.
FROM busybox
WORKDIR /work
COPY text/one.txt .
COPY text/one.txt renamed
COPY text/one.txt new/dir/
COPY text /tree
COPY text/ /tree2/
COPY text/one.txt text/two.txt both/
COPY text/*.txt globbed/
COPY text/???.txt three/
COPY text/[ot]*.txt class/
COPY ["text/with space.md", "/spaced/"]
COPY --chown=1000:10 text /owned
COPY --chown=app text/one.txt /owned-by-name
COPY links /links
COPY . /everything/
