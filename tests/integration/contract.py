# SPDX-License-Identifier: LGPL-2.1-or-later
"""The interface as its golden file has it, and whether a message keeps to it.

sd-varlink checks what comes in; what goes out is checked here, for each reply and each error of every test."""

import pathlib
import re

import varlink.scanner as scanner

PROJECT = pathlib.Path(__file__).resolve().parents[2]
INTERFACE = "io.privmemd.Memory"
GOLDEN = PROJECT / "api" / f"{INTERFACE}.varlink"

OPERATIONS = PROJECT / "api" / "operations.def"

# What every call of the interface may be answered with.
ALWAYS = {"WrongFds", "CustodyFull", "HostFailure"}

# The errors that every varlink service may give, and their fields; the last one is what sd-varlink makes of an errno
# that no handler expected.
SERVICE_ERRORS = {
    "org.varlink.service.InvalidParameter": {"parameter": str()},
    "org.varlink.service.MethodNotFound": {"method": str()},
    "org.varlink.service.InterfaceNotFound": {"interface": str()},
    "org.varlink.service.ExpectedMore": {},
    "io.systemd.System": {"errno": int(), "errnoName": scanner._Maybe(str()), "origin": scanner._Maybe(str())},
}


class Breach(AssertionError):
    """A message that the contract does not allow."""


class Contract:
    def __init__(self, text):
        self.text = text
        self.members = scanner.Interface(text).members
        self.errors = self._errors_of_methods(OPERATIONS.read_text(encoding="utf-8"))

    def methods(self):
        return [name for name, member in self.members.items() if isinstance(member, scanner._Method)]

    def full_name(self, error):
        name = f"{INTERFACE}.{error}" if error in self.members else f"org.varlink.service.{error}"
        return error if "." in error else name

    def _errors_of_methods(self, rows):
        """What operations.def says, and what follows from the right that a method needs and from its parameters."""
        errors = {}
        for method, right in re.findall(r"^OPERATION\((\w+),\s*\w+,\s*(\w+),", rows, re.M):
            errors[method] = ALWAYS | ({"NoSuchVM", "NotPermitted"} if right.startswith("VM_") else set())
            if "ifGeneration" in self.members[method].in_type.fields:
                errors[method] = errors[method] | {"VMChanged"}
        for method, own in re.findall(r"^FAILS\((\w+),([^)]*)\)", rows, re.M):
            errors[method] = errors[method] | set(re.findall(r"\w+", own))
        return errors

    def check_may_fail(self, method, error):
        short = error.removeprefix(f"{INTERFACE}.")
        if short != error and short not in self.errors[method]:
            raise Breach(f"{method} fails with {short}, but its row of FAILS in operations.def does not say so")

    def check_reply(self, method, parameters):
        self._check(method, self.members[method].out_type, parameters)

    def check_error(self, error, parameters):
        short = error.removeprefix(f"{INTERFACE}.")
        if error in SERVICE_ERRORS:
            self._check(error, scanner._Struct(SERVICE_ERRORS[error]), parameters)
        elif short == error or not isinstance(self.members.get(short), scanner._Error):
            raise Breach(f"{error} is no error of the interface: {parameters}")
        else:
            self._check(short, self.members[short].type, parameters)
            self._check_message(short, parameters)

    @staticmethod
    def _check_message(error, parameters):
        """It is made of sentences, and names every object and parameter that the error names."""
        message = parameters["message"]
        if not message.endswith(".") or not message.isprintable():
            raise Breach(f"{error} is no sentence: {message!r}")
        for field in ("vm", "backing", "peer", "claim", "name", "object", "field", "limit", "present", "requested"):
            if str(parameters.get(field, "")) not in message:
                raise Breach(f"{error} does not name its {field}, {parameters[field]}: {message}")

    def _check(self, place, kind, value):
        if isinstance(kind, scanner._Maybe):
            if value is not None:
                self._check(place, kind.element_type, value)
        elif isinstance(kind, scanner._CustomType):
            self._check(place, self.members[kind.name].type, value)
        elif isinstance(kind, scanner._Array):
            self._expect(place, isinstance(value, list), "an array", value)
            for i, element in enumerate(value):
                self._check(f"{place}[{i}]", kind.element_type, element)
        elif isinstance(kind, scanner._Enum):
            self._expect(place, isinstance(value, str) and value in kind.fields, f"one of {list(kind.fields)}", value)
        elif isinstance(kind, scanner._Struct):
            self._check_object(place, kind.fields, value)
        else:
            self._expect(place, type(value) is type(kind), f"a {type(kind).__name__}", value)

    def _check_object(self, place, fields, value):
        self._expect(place, isinstance(value, dict), "an object", value)
        unknown = value.keys() - fields.keys()
        if unknown:
            raise Breach(f"{place}: fields that the interface does not have: {sorted(unknown)}")
        for name, kind in fields.items():
            self._check(f"{place}.{name}", kind, value.get(name))

    @staticmethod
    def _expect(place, is_so, wanted, value):
        if not is_so:
            raise Breach(f"{place} must be {wanted}, but is {value!r}")


def golden():
    return Contract(GOLDEN.read_text())
