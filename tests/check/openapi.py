#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""api/openapi.json is an OpenAPI document, each operation has an example, and every example fits its schema."""

import json

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

import tree

DOCUMENT = "api/openapi.json"


def examples(document, path, part):
    """(where, schema, example) of everything that has both."""
    if isinstance(part, dict):
        if "schema" in part and "example" in part:
            yield path, part["schema"], part["example"]
        for example in part.get("examples", []) if "properties" in part else []:
            yield path, part, example
        for name, member in part.items():
            if name not in ("example", "examples"):
                yield from examples(document, f"{path}/{name}", member)
    elif isinstance(part, list):
        for i, member in enumerate(part):
            yield from examples(document, f"{path}/{i}", member)


def has_example(operation):
    """Of an operation that has a JSON answer."""
    answers = [content["application/json"] for status, response in operation["responses"].items()
               if status in ("200", "201") and "schema" in (content := response.get("content", {})).get(
                   "application/json", {})]
    return not answers or all("example" in answer for answer in answers)


def check(root):
    document = json.loads((root / DOCUMENT).read_text(encoding="utf-8"))
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        yield f"{DOCUMENT}: {'/'.join(map(str, error.path))}: {error.message}"
    for path, schema, example in examples(document, "", document):
        whole = {**schema, "components": document["components"]}
        for error in Draft202012Validator(whole).iter_errors(example):
            yield f"{DOCUMENT}: the example at {path} is wrong: {error.message}; correct it in api/values.def"
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if not has_example(operation):
                yield f"{DOCUMENT}: {verb} {path} has no example"


if __name__ == "__main__":
    tree.main(check)
