"""The table of options: what each takes, what it refuses and how it says so."""

from __future__ import annotations

import enum
import logging
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_asynclog import AsyncLog, ConfigError
from flask_asynclog.config import Settings, option_table
from flask_asynclog.redaction import DEFAULT_NAMES

NAMES = sorted(option_table())
TYPES: dict[str, Any] = typing.get_type_hints(Settings)
FORMATTER = logging.Formatter("%(message)s")
SIXTEEN = re.compile(r"\d{16}")


class Text(str):
    """A subclass of str, as template engines, enumerations and lazy translations have them."""

    __slots__ = ()


class Level(enum.IntEnum):
    """A number with a name."""

    LOUD = 35


#: For each option: values that are taken, and what they become.
ACCEPTED: dict[str, list[tuple[object, object]]] = {
    "enabled": [(True, True), (False, False), ("off", False), ("On", True), ("no", False), (1, True), (0, False)],
    "filename": [
        ("x.log", "x.log"),
        ("a/b/x", "a/b/x"),
        (Path("a/x.log"), "a/x.log"),
        ("/x", "/x"),
        ("é \n", "é \n"),
        (Text("x.log"), "x.log"),
    ],
    "level": [("DEBUG", 10), ("warning", 30), ("WARN", 30), (0, 0), (35, 35), ("NOTSET", 0), (logging.ERROR, 40)],
    "loggers": [
        ((), ()),
        ("", ("",)),
        ("a", ("a",)),
        ("a, b.c", ("a", "b.c")),
        (["", "a"], ("", "a")),
        ((n for n in ("a", "b")), ("a", "b")),
        ({"a"}, ("a",)),
    ],
    "format": [
        ("text", "text"),
        ("json", "json"),
        ("%(message)s", "%(message)s"),
        ("%(levelname)-8s %(lineno)d %(created)f\t%(message)s", "%(levelname)-8s %(lineno)d %(created)f\t%(message)s"),
        ("100%% %(tenant)s %(message)s", "100%% %(tenant)s %(message)s"),
        (FORMATTER, FORMATTER),
        *((name, name) for name in ("ecs", "logfmt", "combined")),
    ],
    "max_bytes": [(0, 0), (1, 1), (2**40, 2**40)],
    "backup_count": [(1, 1), (1000, 1000)],
    "file_mode": [(0o600, 0o600), (0o777, 0o777), ("640", 0o640), ("0o660", 0o660), ("0644", 0o644)],
    "lock_timeout": [(0.001, 0.001), (1, 1.0), (3600, 3600.0)],
    "queue_size": [(1, 1), (100_000_000, 100_000_000)],
    "overflow": [("drop_new", "drop_new"), ("drop_old", "drop_old"), ("block", "block")],
    "block_timeout": [(0, 0.0), (0.5, 0.5), (60, 60.0)],
    "flush_interval": [(0, 0.0), (60, 60.0)],
    "flush_level": [("CRITICAL", 50), (0, 0)],
    "shutdown_timeout": [(0, 0.0), (3600.0, 3600.0)],
    "request_events": [
        ((), ()),
        ("", ()),
        ("response", ("response",)),
        (["request", "response"], ("request", "response")),
        ("request, response", ("request", "response")),
    ],
    "request_logger": [(None, None), ("", ""), ("access", "access")],
    "request_id_header": [(None, None), ("X-Request-ID", "X-Request-ID"), ("traceparent", "traceparent")],
    "trust_request_id": [(True, True), ("yes", True), ("0", False)],
    "client_error_level": [("INFO", 20), (30, 30)],
    "slow_threshold": [(None, None), (0, 0.0), (1.5, 1.5), (86_400, 86_400.0)],
    "sample_rate": [(0, 0.0), (0.01, 0.01), (1, 1.0)],
    "buffer_level": [(None, None), ("DEBUG", 10), (0, 0), (19, 19)],
    "buffer_size": [(1, 1), (1_000_000, 1_000_000)],
    "redact": [
        ((), ()),
        ("", ()),
        ("a, B", ("a", "b")),
        (("...", "mine"), (*DEFAULT_NAMES, "mine")),
        ([..., "mine"], (*DEFAULT_NAMES, "mine")),
    ],
    "redact_patterns": [((), ()), ("", ()), ([r"\d{16}"], (SIXTEEN,)), (SIXTEEN, (SIXTEEN,))],
    "request_headers": [((), ()), ("", ()), ("X-A, X-B", ("X-A", "X-B")), (["X-A"], ("X-A",))],
    "response_headers": [((), ()), (["Content-Type"], ("Content-Type",))],
    "console": [(None, None), (True, True), ("false", False)],
    "handle_sigterm": [(True, True), ("off", False)],
    "exclude_paths": [((), ()), ("", ()), ("/healthz", ("/healthz",)), (["/a", "*.css"], ("/a", "*.css"))],
}

#: For each option: values that are refused.
REFUSED: dict[str, list[object]] = {
    "enabled": [None, "maybe", "", 2, 1.0, [], b"true"],
    "filename": ["", "logs/", None, 1, b"x.log", Path("/"), "a\0b"],
    "level": ["LOUD", "", -1, 10.0, None, True, "10"],
    "loggers": [None, 1, [1], ["a", None], {"a": 1}, b"a", True],
    "format": ["", "TEXT", "common", "%(message", "a\n%(message)s", "\x1b[1m%(message)s", None, 1, {}],
    "max_bytes": [-1, 1.0, "50", "50MB", None, True, 2**63],
    "backup_count": [-1, 1001, 1.5, None, True, 0],
    "file_mode": [0, 0o400, 0o200, 0o1640, 0o100640, "rw-r-----", "888", None, True, 420.0],
    "lock_timeout": [0, -1, 3601, float("nan"), float("inf"), None, "5", True, 10**400],
    "queue_size": [0, -1, 1e5, None, 100_000_001, True],
    "overflow": ["drop", "DROP_NEW", "", None, 1, ["block"]],
    "block_timeout": [-0.1, 61, float("nan"), None, "0.1", False],
    "flush_interval": [-0.1, 61, float("nan"), None, True],
    "flush_level": ["LOUD", -1, None, 40.0, False],
    "shutdown_timeout": [-1, 3601, float("inf"), None, "5"],
    "request_events": [None, "requests", ["request", 1], 1, True, {"request": 1}],
    "request_logger": [1, b"access", ["access"], True],
    "request_id_header": ["", "X Request", "X-Request-ID:", "X\r\nY", "é", 1, True, ["X"]],
    "trust_request_id": [None, "maybe", 2],
    "client_error_level": ["LOUD", -1, None, 30.0],
    "slow_threshold": [-1, 86_401, float("nan"), "1", True],
    "sample_rate": [-0.1, 1.1, None, "1", True, float("nan")],
    "buffer_level": ["LOUD", -1, 10.0],
    "buffer_size": [0, 1_000_001, None, 10.0, True],
    "redact": [None, 1, [1], ["a", "-"], {"a": 1}],
    "redact_patterns": [None, 1, ["("], ["a*"], [rb"a"], [1], {"a": 1}],
    "request_headers": [None, 1, ["X A"], [1], {"X-A": 1}],
    "response_headers": [None, ["X:A"], True],
    "console": ["maybe", 2, "None", 0.0],
    "handle_sigterm": [None, "maybe", 15],
    "exclude_paths": [None, "healthz", ["/a", "b"], [1], {"/a": 1}],
}


def fits(declared: Any, value: object) -> bool:
    """Whether ``value`` is of the type that `Settings` declares."""
    arguments = typing.get_args(declared)
    if typing.get_origin(declared) is tuple:
        item_type = typing.get_origin(arguments[0]) or arguments[0]
        return type(value) is tuple and all(isinstance(item, item_type) for item in value)
    if arguments:
        return any(fits(argument, value) for argument in arguments)
    if declared in (bool, int, float):
        return type(value) is declared
    return isinstance(value, declared)


def load(name: str, value: object) -> object:
    """What `Settings` makes of one value."""
    return getattr(Settings.load({}, {name: value}), name)


def test_every_option_has_examples() -> None:
    """No option escapes the tests below."""
    assert set(ACCEPTED) == set(REFUSED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_accepted_values(name: str) -> None:
    """Each option takes the values of its type, text from environment variables included."""
    for value, expected in ACCEPTED[name]:
        parsed = load(name, value)
        assert parsed == expected
        assert fits(TYPES[name], parsed)
        assert load(name, parsed) == expected, "what was parsed is a value itself"


@pytest.mark.parametrize("name", NAMES)
def test_refused_values(name: str) -> None:
    """The error names the key, the value, its type and what is allowed."""
    for value in REFUSED[name]:
        with pytest.raises(ConfigError) as caught:
            load(name, value)
        text = str(caught.value)
        assert f"ASYNCLOG_{name.upper()}={value!r}" in text
        if (name, value) != ("backup_count", 0):  # allowed by itself
            assert f"({type(value).__name__})" in text
            assert f"Allowed: {option_table()[name].allowed}." in text


def test_config_errors_are_value_errors() -> None:
    """Who catches ValueError around start-up code catches these."""
    assert issubclass(ConfigError, ValueError)


@pytest.mark.parametrize("text", ["%(message)s 100%", "%(message)d", "%(message)s %(name)q", "%(message)s %s"])
def test_a_format_that_fits_no_record_is_refused(text: str) -> None:
    """A format that every record would fail at is a mistake to be told at start-up, not once per line."""
    with pytest.raises(ConfigError, match="ASYNCLOG_FORMAT="):
        load("format", text)


def test_the_defaults_are_valid_and_documented() -> None:
    """Each default is a value of its own option; each option has a type, a range and a help line for people."""
    defaults = Settings()
    for name, option in option_table().items():
        assert load(name, getattr(defaults, name)) == getattr(defaults, name)
        assert option.type
        assert option.allowed
        assert option.help
        assert "\n" not in option.help


def test_the_defaults_of_the_contract() -> None:
    """The defaults that users rely on."""
    assert Settings() == Settings(
        enabled=True, filename="app.log", level=logging.INFO, loggers=("",), format="text",
        max_bytes=50 * 1024 * 1024, backup_count=10, file_mode=0o640, lock_timeout=5.0, queue_size=65_536,
        overflow="drop_new", block_timeout=0.1, flush_interval=0.1, flush_level=logging.ERROR, shutdown_timeout=5.0,
        request_events=("request", "response"), request_logger=None, request_id_header="X-Request-ID",
        trust_request_id=False, console=None,
    )  # fmt: skip


def test_levels_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were registered, small letters or not; any other spelling is looked for in capitals."""
    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName})
    monkeypatch.setattr(logging, "_nameToLevel", {**logging._nameToLevel})
    for number, name in ((5, "Trace"), (25, "NOTICE"), (26, "notice")):
        logging.addLevelName(number, name)
    for name, number in (("Trace", 5), ("notice", 26), ("Notice", 25), ("NOTICE", 25), ("info", 20)):
        assert Settings.load({}, {"level": name}).level == number
    with pytest.raises(ConfigError):
        Settings.load({}, {"level": "trace"})


def test_options_win_over_the_configuration() -> None:
    """``AsyncLog(app, level=…)`` wins over ``app.config``; other extensions' keys do not matter."""
    config = {"ASYNCLOG_LEVEL": "DEBUG", "ASYNCLOG_QUEUE_SIZE": 7, "ASYNC": 1, "SECRET_KEY": object()}
    loaded = Settings.load(config, {"level": "ERROR"})
    assert (loaded.level, loaded.queue_size) == (logging.ERROR, 7)


def test_only_the_value_that_counts_is_checked() -> None:
    """A wrong value in ``app.config`` does no harm where an option replaces it."""
    assert Settings.load({"ASYNCLOG_LEVEL": "LOUD"}, {"level": "ERROR"}).level == logging.ERROR
    with pytest.raises(ConfigError, match="ASYNCLOG_LEVEL='LOUD'"):
        Settings.load({"ASYNCLOG_LEVEL": "ERROR"}, {"level": "LOUD"})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("ASYNCLOG_FILE_NAME", "ASYNCLOG_FILENAME"),
        ("ASYNCLOG_MAXBYTES", "ASYNCLOG_MAX_BYTES"),
        ("ASYNCLOG_BACKUPCOUNT", "ASYNCLOG_BACKUP_COUNT"),
        ("ASYNCLOG_REQUEST_EVENT", "ASYNCLOG_REQUEST_EVENTS"),
    ],
)
def test_an_unknown_key_is_refused(key: str, meant: str) -> None:
    """In ``app.config`` and as an option, with the value and the key that was probably meant."""
    name = key.removeprefix("ASYNCLOG_").lower()
    for config, options in (({key: 5}, {}), ({}, {name: 5})):
        with pytest.raises(ConfigError) as caught:
            Settings.load(config, options)
        assert f"{key}=5" in str(caught.value)
        assert f"did you mean {meant}?" in str(caught.value)


def test_a_key_like_no_other_lists_all() -> None:
    """Where nothing is near, the error lists what there is."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"ASYNCLOG_ZZZ": 1}, {})
    assert all(name in str(caught.value) for name in NAMES)


@pytest.mark.parametrize("option", ["ASYNCLOG_LEVEL", "LEVEL", "Level"])
def test_an_option_in_the_wrong_case_is_told_so(option: str) -> None:
    """The error names the spelling that works as a keyword."""
    with pytest.raises(ConfigError, match=r"\blevel=|\blevel\b.*lower case|lower case.*\blevel\b"):
        Settings.load({}, {option: "DEBUG"})


@pytest.mark.parametrize("buffer", ["INFO", "ERROR"])
def test_a_buffer_of_what_is_written_anyway_is_refused(buffer: str) -> None:
    """The error names both keys."""
    with pytest.raises(ConfigError, match=f"ASYNCLOG_BUFFER_LEVEL={buffer} is not below ASYNCLOG_LEVEL=INFO"):
        Settings.load({}, {"buffer_level": buffer})
    assert Settings.load({}, {"buffer_level": buffer, "level": "CRITICAL"}).buffer_level == logging.getLevelName(buffer)


def test_rotation_without_backups_is_refused() -> None:
    """It would erase the live log; the error names both keys and both ways out."""
    with pytest.raises(ConfigError) as caught:
        Settings.load({"ASYNCLOG_MAX_BYTES": 1000, "ASYNCLOG_BACKUP_COUNT": 0}, {})
    assert "ASYNCLOG_BACKUP_COUNT=0" in str(caught.value)
    assert "ASYNCLOG_MAX_BYTES=1000" in str(caught.value)
    assert "ASYNCLOG_MAX_BYTES=0" in str(caught.value)
    assert Settings.load({"ASYNCLOG_MAX_BYTES": 0, "ASYNCLOG_BACKUP_COUNT": 0}, {}).backup_count == 0


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """``FLASK_ASYNCLOG_…`` through `from_prefixed_env`, each type of option."""
    environment = {
        "ENABLED": "true", "FILENAME": "env.log", "LEVEL": "debug", "LOGGERS": "a,b", "MAX_BYTES": "1000",
        "FILE_MODE": "0600", "FLUSH_INTERVAL": "0.5", "LOCK_TIMEOUT": "2", "OVERFLOW": "block",
        "REQUEST_EVENTS": "response", "REQUEST_ID_HEADER": "null", "TRUST_REQUEST_ID": "yes", "CONSOLE": "false",
    }  # fmt: skip
    for key, value in environment.items():
        monkeypatch.setenv(f"FLASK_ASYNCLOG_{key}", value)
    app = Flask("environment")
    app.config.from_prefixed_env()
    assert Settings.load(app.config, {}) == Settings(
        filename="env.log", level=logging.DEBUG, loggers=("a", "b"), max_bytes=1000, file_mode=0o600,
        flush_interval=0.5, lock_timeout=2.0, overflow="block", request_events=("response",), request_id_header=None,
        trust_request_id=True, console=False,
    )  # fmt: skip


@pytest.mark.parametrize("value", ["false", "False", "off", "no", "0"])
def test_the_kill_switch_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """``FLASK_ASYNCLOG_ENABLED=…`` switches everything off, whichever way it is spelled."""
    monkeypatch.setenv("FLASK_ASYNCLOG_ENABLED", value)
    app = Flask("kill_switch")
    app.config.from_prefixed_env()
    AsyncLog(app)
    assert app.extensions["asynclog"].pipeline is None
    assert os.listdir() == []


def test_an_empty_name_among_others() -> None:
    """Which a comma too many makes, and which would be root; alone it is root."""
    with pytest.raises(ConfigError, match=r"'shop,' .*'' is no name: a comma too many"):
        Settings.load({"ASYNCLOG_LOGGERS": "shop,"}, {})
    assert Settings.load({"ASYNCLOG_LOGGERS": ""}, {}).loggers == ("",)
    assert Settings.load({"ASYNCLOG_LOGGERS": ["shop", ""]}, {}).loggers == ("shop", "")


def test_keys_of_others_may_be_anything() -> None:
    """``app.config`` is a dictionary."""
    assert Settings.load({1: 2, ("ASYNCLOG_LEVEL",): 3}, {}) == Settings()  # type: ignore[dict-item]


def test_a_mode_in_decimal_digits() -> None:
    """As the environment gives it without its 0: 0o1200 is not what was meant."""
    with pytest.raises(ConfigError, match=r"640 \(int\) .*not octal: write 0o640, or 0640 in the environment"):
        Settings.from_environment({"ASYNCLOG_FILE_MODE": "640"})
    assert Settings.from_environment({"ASYNCLOG_FILE_MODE": "0640"})[0].file_mode == 0o640


def test_the_configuration_is_read_once() -> None:
    """Settings are frozen; later changes of ``app.config`` have no effect."""
    config = {"ASYNCLOG_LOGGERS": ["a"]}
    loaded = Settings.load(config, {})
    config["ASYNCLOG_LOGGERS"].append("b")
    assert loaded.loggers == ("a",)
    with pytest.raises(AttributeError):
        loaded.level = 10  # type: ignore[misc]


def test_differences_name_the_shared_keys() -> None:
    """What two apps with one file must agree on, and nothing else."""
    ours = Settings()
    theirs = Settings(
        filename="elsewhere", level=10, loggers=("a",), request_events=(), trust_request_id=True, queue_size=9
    )
    assert ours.differences(theirs) == ["level", "queue_size"]
    assert ours.differences(ours) == []


class Hostile:
    """An object that nothing works with."""

    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("eq")

    __hash__ = object.__hash__


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 0o1777)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.decimals()
    | st.sampled_from([value for values in ACCEPTED.values() for value, _ in values if not hasattr(value, "__next__")])
    | st.sampled_from([value for values in REFUSED.values() for value in values])
    | st.builds(object)
    | st.builds(Hostile)
    | st.sampled_from([int, len, Path("x"), range(3), 10**400, float("nan"), Level.LOUD, Text("json")]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children)
        | st.dictionaries(st.text(max_size=3), children, max_size=2)
    ),
    max_leaves=4,
)


@given(name=st.sampled_from(NAMES), value=VALUES)
@example(name="format", value=Hostile())
@example(name="request_events", value=Hostile())
@example(name="overflow", value=Hostile())
@settings(deadline=None, database=None, max_examples=400)
def test_any_value_is_parsed_or_refused(name: str, value: object) -> None:
    """Whatever is given to whichever option: a value of the declared type, or a ConfigError that names the key."""
    try:
        loaded = Settings.load({}, {name: value})
    except ConfigError as error:
        said = str(error)
    else:
        assert fits(TYPES[name], getattr(loaded, name))
        assert Settings.load({}, {name: getattr(loaded, name)}) == loaded
        return
    assert f"ASYNCLOG_{name.upper()}=" in said


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=3))
@settings(deadline=None, database=None, max_examples=100)
def test_any_unknown_key_is_refused(keys: Mapping[str, object]) -> None:
    """No key with our prefix is ever ignored."""
    unknown = {f"ASYNCLOG_X{key}": value for key, value in keys.items()}
    if not unknown:
        assert Settings.load(unknown, {}) == Settings()
        return
    with pytest.raises(ConfigError, match="unknown option ASYNCLOG_X"):
        Settings.load(unknown, {})
