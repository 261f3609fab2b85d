# The image of Hansa: one static binary, an unprivileged user, nothing else that runs.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN make build VERSION="$VERSION" && mkdir -p /out/srv/hansa

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /src/bin/hansa /hansa
COPY --from=build --chown=65532:65532 /out/srv /srv
USER 65532:65532
WORKDIR /srv/hansa
VOLUME /srv/hansa
ENV HANSA_LISTEN_CLIENT=0.0.0.0:8008
EXPOSE 8008
ENTRYPOINT ["/hansa"]
CMD ["serve", "-c", "/srv/hansa/hansa.yaml"]
