# Two images of one tree:
#
#   docker build --target api -t adaptry-api .          the server: no torch, it parses headers and hashes bytes (one that
#                                                       serves merged models has: --build-arg EXTRAS=server,torch,postgres,s3,jobs)
#   docker build --target runner -t adaptry-runner .    runners, which compute, and so bring torch
#
# Torch comes as a plain range, so how pip is set up decides between CPU and GPU wheels.
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY cli cli
COPY api api
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# A user of its own, so that a program that was broken into owns its cache and nothing else.
FROM python:3.12-slim AS ground
RUN useradd --system --uid 10001 --home-dir /data adaptry && install -d -o 10001 -g 10001 -m 0700 /data /spools
ENV ADAPTRY_HOME=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
VOLUME /data

FROM ground AS runner
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[torch,postgres,s3,jobs]"
USER 10001:10001
CMD ["adaptry", "work"]

# The last one is what a build without --target makes: one server with its registry in a volume.
FROM ground AS api
ARG EXTRAS=server,postgres,s3,jobs
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]"
USER 10001:10001
EXPOSE 8750
CMD ["adaptry", "serve", "--host", "0.0.0.0", "--port", "8750"]
