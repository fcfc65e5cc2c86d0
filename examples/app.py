"""The smallest app: one line adopts the log. Options come from FLASK_ASYNCLOG_… environment variables."""

from flask import Flask

from flask_asynclog import AsyncLog

app = Flask("demo")
app.config.from_prefixed_env()
asynclog = AsyncLog(app)


@app.get("/hello/<name>")
def hello(name: str) -> str:
    """Greet, and log as any view does."""
    app.logger.info("greeting %s", name)
    return f"hello {name}\n"


@app.get("/healthz")
def healthz() -> str:
    """For probes: gunicorn.conf.py keeps it out of the logs."""
    return "ok\n"
