# The API server, without torch: it parses headers and hashes bytes, and never computes.
FROM python:3.12-slim

WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY cli cli
COPY api api
RUN pip install --no-cache-dir '.[server]' && rm -rf /src

# A user of its own, so that a broken-into server owns its data and nothing else.
RUN useradd --system --uid 10001 --home-dir /data adaptry && install -d -o adaptry -g adaptry -m 0700 /data
USER adaptry
WORKDIR /data
VOLUME /data
EXPOSE 8750
CMD ["adaptry", "serve", "--host", "0.0.0.0", "--port", "8750", "--data", "/data"]
