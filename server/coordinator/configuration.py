"""A coordinator's own settings (``coordinator.toml``): addresses, a port, and how long what it issues holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from ...common.enrolment.address import Address, host_name
from ...common.errors import ConfigError
from ...common.misfit import first_misfit
from ...common.study_table import StudyTable
from ...common.toml_text import parse_toml, toml_text

LONGEST_DAYS = 825
"""Of any server certificate or enrolment; what browsers once put up with (CA/Browser Forum, ballot 193)."""

_HEAD = """\
# address: where sites reach this coordinator; also: further host names and IP addresses of it, for its certificate
# listen: what the proxy listens on; link_port: of the SuperLink, on this machine's loopback alone
# valid_days: how long server certificates and enrolments hold
# After an edit of address or also, issue new certificates: fedphantom server renew
"""


def _address(text: str) -> str:
    return str(Address.parse(text))


HostAndPort = Annotated[str, AfterValidator(_address)]


class CoordinatorTable(StudyTable):
    """The file."""

    address: HostAndPort
    also: tuple[Annotated[str, AfterValidator(host_name)], ...] = ()
    listen: Annotated[tuple[HostAndPort, ...], Field(min_length=1)]
    link_port: Annotated[int, Field(ge=1, le=65535)] = 9200
    valid_days: Annotated[int, Field(ge=1, le=LONGEST_DAYS)]

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every name that the proxy's certificate is for, each once."""
        return tuple(dict.fromkeys((Address.parse(self.address).host, *self.also)))

    def to_toml(self) -> str:
        """The file's text, with what the keys mean."""
        return _HEAD + toml_text(self.model_dump(mode="json"))


def new_configuration(address: str, also: tuple[str, ...], days: int) -> CoordinatorTable:
    """Settings for a new coordinator that listens on every interface, at the address's own port.

    Raises:
        ConfigError: no such address or host.
    """
    for option, read, texts in (("--address", Address.parse, (address,)), ("--also", host_name, also)):
        for text in texts:
            try:
                read(text)
            except ValueError as error:
                raise ConfigError(
                    f"{option}: no such address or host", expected=str(error), remedy="Write it as sites will reach it."
                ) from None
    parsed = Address.parse(address)
    hosts = ["0.0.0.0", "[::]"] if ":" in parsed.host else ["0.0.0.0"]  # noqa: S104  # sites reach it from elsewhere
    listen = [f"{host}:{parsed.port}" for host in hosts]
    return _checked({"address": address, "also": also, "listen": listen, "valid_days": days})


def read_configuration(path: Path) -> CoordinatorTable:
    """Read the file. Raises ConfigError where it is missing, no TOML, or does not fit."""
    try:
        content = parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigError(
            f"no readable {path.name}", expected="TOML, as 'fedphantom server init' wrote it", remedy="Mend it."
        ) from None
    return _checked(content)


def _checked(content: dict[str, object]) -> CoordinatorTable:
    try:
        return CoordinatorTable.model_validate(content)
    except ValidationError as error:
        misfit = first_misfit(error)
        raise ConfigError(f"'{misfit.key}'{misfit.found}", expected=misfit.expected, remedy="Mend it.") from None
