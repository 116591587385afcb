# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real Prometheus, which scrapes over TLS, and evaluates its rules, every half second."""

import http.client
import json
import socket
import subprocess
import urllib.parse


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Prometheus:
    def __init__(self, directory, rules, port, jobs):
        """jobs: how each scrapes that port of 127.0.0.1, such as {"tls_config": …, "authorization": …}, by name."""
        self.port = free_port()
        config = directory / "prometheus.yml"
        # JSON is YAML.
        config.write_text(json.dumps({
            "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": name, "scheme": "https",
                                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}], **way}
                               for name, way in jobs.items()],
        }))
        self.log = directory / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'prometheus'}",
                 f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)

    def ask(self, path, **query):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def health(self):
        """(health, last error) of each job; None before all are known."""
        if self.process.poll() is not None:
            raise AssertionError(self.log.read_text(errors="replace"))
        try:
            targets = self.ask("targets")["activeTargets"]
        except (ConnectionRefusedError, ValueError):
            return None
        if not targets or any(target["health"] == "unknown" for target in targets):
            return None
        return {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets}

    def value(self, expression):
        found = self.ask("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def rules(self):
        """How each of them does."""
        (group,) = self.ask("rules")["groups"]
        return {rule["name"]: rule["health"] for rule in group["rules"]}

    def alerts(self):
        """The state of each, by its name and its VM."""
        return {(one["labels"]["alertname"], one["labels"].get("vm")): one["state"]
                for one in self.ask("alerts")["alerts"]}

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
