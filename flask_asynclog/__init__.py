"""Asynchronous, non-blocking logging for Flask: one line in the app, one rotating file, any number of workers."""

from importlib.metadata import version

from flask_asynclog.config import ConfigError
from flask_asynclog.context import bind
from flask_asynclog.extension import AsyncLog
from flask_asynclog.stats import Stats

__all__ = ["AsyncLog", "ConfigError", "Stats", "__version__", "bind"]

__version__ = version("flask-asynclog")
