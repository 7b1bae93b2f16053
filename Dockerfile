# weir as one static program in an image that holds nothing else.
#
#   docker build -t weir .
#   docker run --rm -p 127.0.0.1:8080:8080 -v ./weir.yaml:/etc/weir/weir.yaml:ro -v weir:/var/lib/weir weir \
#     serve --config /etc/weir/weir.yaml --http 0.0.0.0:8080
#
# Beyond loopback, which a container's port is, serve needs an API key: in the configuration, or from weir keys create.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/weir ./cmd/weir && mkdir /out/data

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/weir /usr/local/bin/weir
COPY --from=build --chown=65532:65532 /out/data /var/lib/weir
ENV WEIR_DATA_DIR=/var/lib/weir
VOLUME /var/lib/weir
EXPOSE 8080
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/weir"]
CMD ["serve"]
