# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /openapi.json says: its operations, whether an answer keeps to it, and values that it allows or does not."""

import copy
import json
import urllib.parse

from hypothesis import strategies
from jsonschema import Draft202012Validator

from contract import PROJECT

GOLDEN = PROJECT / "api" / "openapi.json"
PROBLEM = "application/problem+json"
VERBS = ("get", "put", "post", "delete")


class Breach(AssertionError):
    """An answer that the document does not allow."""


def close_objects(part):
    """A client may not rely on members that are not documented, so there are to be none."""
    if isinstance(part, dict):
        if "properties" in part:
            part.setdefault("additionalProperties", False)
        for member in part.values():
            close_objects(member)
    elif isinstance(part, list):
        for member in part:
            close_objects(member)


class Operation:
    def __init__(self, document, verb, path, description):
        self.document = document
        self.verb = verb.upper()
        self.path = path
        self.id = description["operationId"]
        self.is_method = "x-method" in description
        self.description = description
        self.parameters = description.get("parameters", [])
        self.statuses = {int(status) for status in description["responses"] if status != "default"}

    def __repr__(self):
        return self.id

    def of(self, place):
        return [parameter for parameter in self.parameters if parameter["in"] == place]

    def has_parameter(self, name):
        return any(parameter["name"] == name for parameter in self.parameters)

    @property
    def is_stream(self):
        return "text/event-stream" in self.description["responses"]["200"].get("content", {}) \
            if "200" in self.description["responses"] else False

    @property
    def body(self):
        """The schema of the body; None: it has none."""
        if "requestBody" not in self.description:
            return None
        return self.description["requestBody"]["content"]["application/json"]["schema"]

    @property
    def example(self):
        if self.body is None:
            return None
        return copy.deepcopy(self.description["requestBody"]["content"]["application/json"]["example"])

    def address(self, values, query=None):
        """The path with these values for its parts, or with those of the examples."""
        path = self.path
        for parameter in self.of("path"):
            value = str(values.get(parameter["name"], parameter["example"]))
            path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(value, safe=""))
        return path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else "")


class Document:
    def __init__(self, text):
        self.text = text
        self.json = json.loads(text)
        strict = copy.deepcopy(self.json["components"])
        close_objects(strict)
        self.components = strict
        self.operations = [Operation(self, verb, path, description)
                           for path, item in self.json["paths"].items() for verb, description in item.items()]
        self._validators = {}

    def operation(self, name):
        (found,) = [operation for operation in self.operations if operation.id == name]
        return found

    def methods(self):
        return [operation for operation in self.operations if operation.is_method]

    def verbs(self, path):
        return {operation.verb for operation in self.operations if operation.path == path}

    # ---- answers ----

    def validator(self, schema):
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**schema, "components": self.components})
        return self._validators[key]

    def check(self, what, schema, value):
        errors = sorted(self.validator(schema).iter_errors(value), key=lambda error: error.json_path)
        if errors:
            raise Breach(f"{what}: {errors[0].json_path}: {errors[0].message[:2000]}\n{json.dumps(value)[:2000]}")

    def check_problem(self, what, schema, value):
        """Of anyOf only the schema of that type, for a message that says what is wrong."""
        names = [choice["$ref"].rsplit("/", 1)[1] for choice in schema["anyOf"]]
        types = {self.components["schemas"][name]["properties"]["type"]["const"]: name for name in names}
        if value.get("type") not in types:
            raise Breach(f"{what}: its type is not among {sorted(types)}: {value}")
        self.check(what, {"$ref": "#/components/schemas/" + types[value["type"]]}, value)

    def check_headers(self, what, response, answer):
        for name, header in response.get("headers", {}).items():
            header = self.components["headers"][header["$ref"].rsplit("/", 1)[1]]
            given = answer.headers.get(name)
            if given is None:
                raise Breach(f"{what}: it lacks the header {name}: {answer}")
            self.check(what, header["schema"], int(given) if header["schema"]["type"] == "integer" else given)

    def check_answer(self, operation, answer):
        """Holds it against what the operation says of its status."""
        what = f"{operation} {answer.status}"
        responses = operation.description["responses"]
        response = responses.get(str(answer.status)) or responses["default"]
        content = response.get("content")
        if str(answer.status) not in responses and answer.status < 400:
            raise Breach(f"{what}: the status is not documented: {answer}")
        if answer.status in (500, 502, 504):
            raise Breach(f"{what}: nothing is wrong with this host: {answer}")
        if content is None:
            if answer.data:
                raise Breach(f"{what}: it has a body: {answer}")
        elif answer.type not in content:
            raise Breach(f"{what}: its type is not among {sorted(content)}: {answer}")
        elif answer.type == PROBLEM:
            document = answer.json
            self.check_problem(what, content[PROBLEM]["schema"], document)
            if document["status"] != answer.status:
                raise Breach(f"{what}: the document says {document['status']}")
        elif "schema" in content[answer.type]:
            self.check_content(what, content[answer.type]["schema"], answer)
        self.check_headers(what, response, answer)

    def check_content(self, what, schema, answer):
        if "x-itemSchema" not in schema:
            self.check(what, schema, answer.json)
            return
        for line in answer.data.decode().splitlines():
            self.check(what, schema["x-itemSchema"], json.loads(line))


def golden():
    return Document(GOLDEN.read_text(encoding="utf-8"))


# ---- values ----

def resolve(document, schema):
    while "$ref" in schema or "anyOf" in schema:
        if "anyOf" in schema:
            schema = next(choice for choice in schema["anyOf"] if choice.get("type") != "null")
        else:
            schema = document.json["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def kind(document, schema):
    """Its type without null."""
    found = resolve(document, schema)["type"]
    return found if isinstance(found, str) else next(name for name in found if name != "null")


def may_be_null(schema):
    return {"type": "null"} in schema.get("anyOf", []) or "null" in schema.get("type", "")


WRONG = {
    "string": [7, True, ["x"], {"x": 1}],
    "integer": ["7", "x", 1.5, True, [7], {"x": 7}],
    "boolean": ["true", 1, [True], {"x": True}],
    "array": ["x", 7, {"x": 7}],
    "object": ["x", 7, []],
}


def wrong_values(document, schema):
    """None of them has the right type."""
    yield from WRONG[kind(document, schema)]
    if not may_be_null(schema):
        yield None
    found = resolve(document, schema)
    if "enum" in found:
        yield "no_such_word"
    if kind(document, schema) == "array":
        yield from ([wrong] for wrong in wrong_values(document, found["items"]))


def outside(document, schema):
    """Numbers just beyond the range, and far beyond it."""
    found = resolve(document, schema)
    if kind(document, schema) == "integer":
        for number in (found["minimum"] - 1, found["maximum"] + 1, -(1 << 63), 1 << 64, 10 ** 30):
            if not found["minimum"] <= number <= found["maximum"]:
                yield number


# It cannot be part of a string of privmemd's, and is 400 anywhere.
WITHOUT_NUL = strategies.characters(codec="utf-8", exclude_characters="\0")


def values(document, schema):
    """A hypothesis strategy of values that the schema allows."""
    found = resolve(document, schema)
    name = kind(document, schema)
    if "enum" in found:
        made = strategies.sampled_from(found["enum"])
    elif name == "integer":
        least, most = found["minimum"], found["maximum"]
        near = {least, least + 1, 4096, 2 << 20, 1 << 32, 1 << 63, most - 1, most}
        made = strategies.one_of(strategies.sampled_from(sorted(n for n in near if least <= n <= most)),
                                 strategies.integers(least, min(most, least + (64 << 20))),
                                 strategies.integers(least, most))
    elif name == "boolean":
        made = strategies.booleans()
    elif name == "string":
        some = ["web1", "db1", "ram0", "none", "a" * 64]
        made = strategies.one_of(strategies.sampled_from(some), strategies.from_regex(found["pattern"], fullmatch=True)
                                 if "pattern" in found else strategies.text(WITHOUT_NUL, max_size=80))
    elif name == "array":
        made = strategies.lists(values(document, found["items"]), min_size=found.get("minItems", 0), max_size=4)
    else:
        made = objects(document, found)
    return strategies.one_of(made, strategies.none()) if may_be_null(schema) else made


def objects(document, schema):
    required = schema.get("required", [])
    members = {name: values(document, member) for name, member in schema["properties"].items()}
    return strategies.fixed_dictionaries(
        {name: member for name, member in members.items() if name in required},
        optional={name: member for name, member in members.items() if name not in required})
