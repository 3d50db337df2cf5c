from __future__ import annotations

from pathlib import Path

import pytest

from ebpfmesh.config import Config, ConfigError, load, option, parse, settings

SOURCE = "some.toml"


def from_file(text: str) -> Config:
    return parse(text, SOURCE, {}, {})


def test_defaults() -> None:
    config = parse("", SOURCE, {}, {})
    assert config == Config()
    assert (config.maglev_size, config.mesh_vni, config.hub_port) == (16381, 15461121, 7380)
    assert (config.resync_interval_s, config.task_poll_interval_s) == (30.0, 1.0)


def test_every_default_is_allowed_from_each_source() -> None:
    defaults = {name: setting.default for name, setting in settings().items()}
    environ = {setting.variable: str(setting.default) for setting in settings().values()}
    text = "\n".join(
        f"{setting.name} = {setting.default_text!r}"
        if setting.kind is str
        else f"{setting.name} = {setting.default_text}"
        for setting in settings().values()
    )
    assert from_file(text) == Config()
    assert parse("", SOURCE, environ, {}) == Config()
    assert parse("", SOURCE, {}, defaults) == Config()


def test_yes_or_no() -> None:
    assert Config().spoof_check is True
    assert from_file("spoof_check = false").spoof_check is False
    assert parse("", SOURCE, {"EBPFMESH_SPOOF_CHECK": "false"}, {}).spoof_check is False
    assert parse("", SOURCE, {}, {"spoof_check": "true"}).spoof_check is True


def test_later_sources_win() -> None:
    text = "hub_port = 1\nmetrics_port = 2\nvxlan_port = 3"
    environ = {"EBPFMESH_METRICS_PORT": "20", "EBPFMESH_VXLAN_PORT": "30"}
    config = parse(text, SOURCE, environ, {"vxlan_port": 300, "log_level": None})
    assert (config.hub_port, config.metrics_port, config.vxlan_port) == (1, 20, 300)
    assert config.log_level == "info"


def test_text_stands_for_numbers_but_not_in_the_file() -> None:
    assert parse("", SOURCE, {"EBPFMESH_RESYNC_INTERVAL_S": "2.5"}, {}).resync_interval_s == 2.5
    assert parse("", SOURCE, {}, {"hub_port": "99"}).hub_port == 99
    assert from_file("resync_interval_s = 2").resync_interval_s == 2
    with pytest.raises(ConfigError):
        from_file('hub_port = "99"')


def test_other_peoples_variables_are_ignored() -> None:
    environ = {
        "PATH": "/bin",
        "HUB_PORT": "x",
        "EBPFMESH_CONFIG": "/x",
        "EBPFMESH_LAB_DIR": "/y",
    }
    assert parse("", SOURCE, environ, {}) == Config()


BAD = [
    ("docker_socket", "docker.sock", "an absolute path"),
    ("socket", "", "an absolute path"),
    ("state_dir", "./state", "an absolute path"),
    ("pin_dir", "/sys/\n", "an absolute path"),
    ("netns_dir", "netns", "an absolute path"),
    ("cgroup", "sys", "an absolute path, or empty"),
    ("swarm_dir", "swarm", "an absolute path, or empty"),
    ("device", "a-name-of-16-chars", "the name of a link"),
    ("device", "eth0\n", "the name of a link"),
    ("device", "a/b", "the name of a link"),
    ("interfaces", "eth0, eth1", "names of links or globs"),
    ("interfaces", "eth0,", "names of links or globs"),
    ("interfaces", "a-name-of-16-chars", "names of links or globs"),
    ("spoof_check", "perhaps", "true or false"),
    ("xdp", "fast", "one of auto, generic, native, off"),
    ("return_mode", "nat", "one of dsr, tunnel"),
    ("log_level", "loud", "one of debug, error, info, warning"),
    ("log_format", "xml", "one of auto, console, json"),
    ("maglev_size", "16384", "try 16381 or 16411"),
    ("maglev_size", "131101", "a prime from 3 to 131071"),
    ("max_flows", "1", "an integer from 1024 to 67108864"),
    ("takeover_grace_s", "-1", "a number from 0 to 86400"),
    ("syn_timeout_s", "0.5", "a number from 1 to 3600"),
    ("tcp_timeout_s", "59", "a number from 60 to 31536000"),
    ("udp_timeout_s", "86401", "a number from 1 to 86400"),
    ("max_services", "0", "an integer from 16 to 1048576"),
    ("max_frontends", "many", "an integer from 16 to 1048576"),
    ("max_backends", "-1", "an integer from 16 to 1048576"),
    ("mesh_vni", "16777216", "an integer from 1 to 16777215"),
    ("mesh_vni", "0", "an integer from 1 to 16777215"),
    ("vxlan_port", "65536", "an integer from 1 to 65535"),
    ("underlay_mtu", "575", "0, or an integer from 576 to 65535"),
    ("underlay_mtu", "-1", "0, or an integer from 576 to 65535"),
    ("hub_port", "", "an integer from 1 to 65535"),
    ("metrics_port", "1.5", "an integer from 1 to 65535"),
    ("hub_address", "10.0.0.256", "an IPv4 address, or empty"),
    ("hub_address", "10.0.0.1\n", "an IPv4 address, or empty"),
    ("metrics_address", "localhost", "an IPv4 address, or empty"),
    ("resync_interval_s", "nan", "a number from 1 to 3600"),
    ("task_poll_interval_s", "0", "a number from 0.1 to 60"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_variable(name: str, value: str, allowed: str) -> None:
    variable = settings()[name].variable
    with pytest.raises(ConfigError) as caught:
        parse("", SOURCE, {variable: value}, {})
    assert str(caught.value).startswith(f"environment: {variable} is {value!r}; ")
    assert allowed in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_option(name: str, value: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", SOURCE, {}, {name: value})
    assert str(caught.value).startswith(f"command line: {option(name)} is {value!r}; ")
    assert allowed in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hub_port = true", "some.toml: hub_port is True; allowed: an integer from 1 to 65535"),
        ("hub_port = 0", "some.toml: hub_port is 0; allowed: an integer from 1 to 65535"),
        ('device = ["eth0"]', "some.toml: device is ['eth0']; allowed: the name of a link"),
        ("maglev_size = 10", "try 7 or 11"),
        ("hub_prt = 1", "some.toml: unknown setting hub_prt; did you mean hub_port?"),
        ("[agent]\nhub_port = 1", "some.toml: unknown setting agent; known are docker_socket, "),
        ("hub_port =", "some.toml: not valid TOML: "),
    ],
)
def test_a_bad_file(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_file(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_in_the_file_is_told_though_the_environment_has_a_good_one() -> None:
    with pytest.raises(ConfigError, match=r"some\.toml"):
        parse("hub_port = 0", SOURCE, {"EBPFMESH_HUB_PORT": "1"}, {})


def test_unknown_variables_and_options() -> None:
    with pytest.raises(ConfigError, match=r"EBPFMESH_XPD; did you mean EBPFMESH_XDP\?"):
        parse("", SOURCE, {"EBPFMESH_XPD": "off"}, {})
    with pytest.raises(ConfigError, match="did you mean --hub-port"):
        parse("", SOURCE, {}, {"hub_prt": 1})


def test_a_long_value_is_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", SOURCE, {"EBPFMESH_XDP": "x" * 5000}, {})
    assert len(str(caught.value)) < 200


def test_the_file_is_the_argument_or_the_variable(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("hub_port = 1")
    other.write_text("hub_port = 2")
    environ = {"EBPFMESH_CONFIG": str(other)}
    assert load(one, environ).hub_port == 1
    assert load(None, environ).hub_port == 2
    assert load(str(one), environ, {"hub_port": 3}).hub_port == 3


def test_only_the_default_file_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing.toml"
    monkeypatch.setattr("ebpfmesh.config.DEFAULT_FILE", missing)
    assert load() == Config()
    with pytest.raises(ConfigError, match=r"missing\.toml: no such file"):
        load(missing)
    with pytest.raises(ConfigError, match=r"missing\.toml: no such file"):
        load(None, {"EBPFMESH_CONFIG": str(missing)})


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'device = "\xe9"')
    for path in (tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path)


def test_every_setting_is_documented() -> None:
    assert list(settings()) == list(Config.__struct_fields__)
    for setting in settings().values():
        assert setting.description.endswith(".")
        assert setting.allowed
        assert type(setting.default) is setting.kind
        assert setting.variable == "EBPFMESH_" + setting.name.upper()
