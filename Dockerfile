# Two images of one tree:
#
#   docker build --target api -t adaptry-api .          the server: no torch, it parses headers and hashes bytes (one that
#                                                       serves merged models has it: --build-arg REQUIREMENTS=api-torch)
#   docker build --target runner -t adaptry-runner .    runners, which compute, and so bring torch
#
# Everything is pinned by digest: the base image here (of the index of all platforms; `make pin` asks its registry again), and
# the packages in requirements/*.txt (`make lock` writes them from pyproject.toml). Torch is the one of PyPI, for NVIDIA GPUs; for
# another, run `make lock` with uv set up for the index that has it.
ARG PYTHON=python:3.12.14-slim-trixie@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea

FROM ${PYTHON} AS wheel
WORKDIR /src
COPY requirements/build.txt requirements/build.txt
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY cli cli
COPY api api
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

# A user of its own, so that a program that was broken into owns its cache and nothing else.
FROM ${PYTHON} AS ground
RUN useradd --system --uid 10001 --home-dir /data adaptry && install -d -o 10001 -g 10001 -m 0700 /data /spools
ENV ADAPTRY_HOME=/data PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
VOLUME /data

FROM ground AS runner
RUN --mount=from=wheel,source=/wheels,target=/wheels --mount=source=requirements,target=/requirements \
    pip install --no-cache-dir --require-hashes --only-binary :all: --requirement /requirements/runner.txt && \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
CMD ["adaptry", "work"]

# The last one is what a build without --target makes: one server with its registry in a volume.
FROM ground AS api
ARG REQUIREMENTS=api
RUN --mount=from=wheel,source=/wheels,target=/wheels --mount=source=requirements,target=/requirements \
    pip install --no-cache-dir --require-hashes --only-binary :all: --requirement "/requirements/${REQUIREMENTS}.txt" && \
    pip install --no-cache-dir --no-deps /wheels/*.whl
USER 10001:10001
EXPOSE 8750
CMD ["adaptry", "serve", "--host", "0.0.0.0", "--port", "8750"]
