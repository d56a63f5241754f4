#!/usr/bin/env python3
"""Makes the fixtures in this directory from recordings of real forges.

    python3 wiremock-fixtures/make.py RECORDINGS

RECORDINGS holds one directory a server, each with exchanges.jsonl (API
calls) and deliveries.jsonl (webhook deliveries), one JSON object a line.
For each server two files are written here:

  SERVER.json             WireMock stub mappings, one an exchange, in order
  SERVER.deliveries.json  the deliveries with headers and raw bodies as text
"""

import json
import pathlib
import sys
from urllib.parse import parse_qsl, urlsplit

HERE = pathlib.Path(__file__).resolve().parent


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def mapping(exchange):
    asked, answered = exchange["request"], exchange["response"]
    address = urlsplit(asked["path"])
    request = {"method": asked["method"], "urlPath": address.path}
    if address.query:
        request["queryParameters"] = {
            key: {"equalTo": value} for key, value in parse_qsl(address.query)
        }
    # A multipart body is recorded as a remark only: nothing to match.
    if isinstance(asked["body"], dict):
        request["bodyPatterns"] = [{"equalToJson": asked["body"]}]
    metadata = {"as": exchange["as"]}
    if exchange.get("note"):
        metadata["note"] = exchange["note"]
    return {
        "name": exchange["name"],
        "metadata": metadata,
        "request": request,
        "response": {
            "status": answered["status"],
            "headers": answered["headers"],
            "body": answered["body"] or "",
        },
    }


def write(path, value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"{path.name}: {len(text)} characters")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    servers = sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/exchanges.jsonl"))
    if not servers:
        sys.exit(f"{sys.argv[1]}: no directory below it holds an exchanges.jsonl")
    for server in servers:
        exchanges = [mapping(e) for e in lines(server / "exchanges.jsonl")]
        write(HERE / f"{server.name}.json", {"mappings": exchanges})
        deliveries = lines(server / "deliveries.jsonl")
        write(HERE / f"{server.name}.deliveries.json", {"deliveries": deliveries})


if __name__ == "__main__":
    main()
