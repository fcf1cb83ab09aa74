# Scopes of ARG, forms of expansion.
ARG BASE=busybox
ARG TAG
ARG UNUSED=global
FROM ${BASE}${TAG:+:$TAG} AS one
ARG GIVEN
ARG DEFAULT=default
ARG UNUSED
ENV A=${GIVEN:-none} B=${DEFAULT:+set} C=$NOWHERE D=\$DEFAULT E='$DEFAULT' F="$DEFAULT" G="${NOWHERE:-a b}"
ENV H=${UNUSED} I="a\"b" J=x${DEFAULT}y$GIVEN
LABEL one=$A two=${B}
ARG DEFAULT=second
RUN echo "$GIVEN $DEFAULT $A $UNUSED" >/out
FROM one
RUN echo "$A" >/out2
WORKDIR /w/$A
COPY ${A}.txt* text/*.txt ./
