# A node as an image: for Railway and Fly, which build with it as soon as there is one, for compose.yaml, and for any host
# that runs images. It has the Python of runtime.txt and starts what the Procfile does; tests/unit/test_host_files.py
# compares them. `make image-test` builds and tries it.
FROM python:3.11.15-slim-bookworm AS build
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils
COPY requirements.txt /tmp/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --no-compile -r /tmp/requirements.txt \
 && /opt/venv/bin/pip uninstall --quiet --yes pip setuptools
WORKDIR /app
COPY .flaskenv wsgi.py ./
COPY api api
COPY failover failover
COPY migrations migrations
COPY image /tmp/image
RUN PYTHONDONTWRITEBYTECODE=1 /opt/venv/bin/python /tmp/image/trim.py

FROM python:3.11.15-slim-bookworm
RUN useradd --uid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin node \
 && install -d -o node -g node -m 0700 /app/data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
USER node
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT') or 5000}/livez\", timeout=4)"]
# The Procfile's line; with exec, so that Python is process 1 and SIGTERM reaches the node.
CMD ["sh", "-c", "cd api && exec python app.py"]
