"""Prometheus and Grafana of the containers: schema, ports, and queries that name metrics that there are."""

import json
import re

import pytest
import yaml

from cm_ray.cluster.training import gauges
from tests.docker.test_docker import DOCKER, check_compose, compose

DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "cm_ray.json").read_text())
METRICS = compose("compose.metrics.yaml")


def test_the_overlay_follows_the_specification_and_listens_on_the_loopback():
    check_compose(METRICS)
    for service in METRICS["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service.get("image", "cm-ray:pinned").count(":") == 1


def test_mounted_files_exist():
    for service in METRICS["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in METRICS["volumes"] or (DOCKER / source).exists()


def test_nodes_of_ray_do_what_they_did_and_open_the_port_that_is_scraped():
    (job,) = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == {"ray-head", "ray-worker"}
    flag = f"--metrics-export-port={found['port']}"
    for name in found["names"]:
        words = METRICS["services"][name]["command"].split()
        assert flag in words
        assert [word for word in words if word != flag] == compose("compose.yaml")["services"][name][
            "command"
        ].split()


def test_the_dashboard_asks_for_metrics_that_trainings_set():
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in DASHBOARD["templating"]["list"]]
    asked = {name for query in queries for name in re.findall(r"ray_\w+", query)}
    assert asked == {f"ray_{name}" for name in gauges.GAUGES}
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    (prometheus,) = source["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {prometheus["uid"]}
    assert prometheus["url"] == "http://prometheus:9090"
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/cm_ray.yaml").read_text())
    path = provider["providers"][0]["options"]["path"]
    mounted = METRICS["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{path}:ro" in mounted


@pytest.fixture
def set_values(monkeypatch):
    """The values that are set, by the name of the metric and the run."""
    values = {}

    class Recorded:
        def __init__(self, name, description, tag_keys):
            assert description
            assert tag_keys == ("run",)
            self.name = name

        def set_default_tags(self, tags):
            self.run = tags["run"]

        def set(self, value):
            values[self.name, self.run] = value

    monkeypatch.setattr(gauges, "Gauge", Recorded)
    return values


def test_a_row_of_the_log_sets_the_metrics(set_values):
    shown = gauges.TrainingGauges("digits", 100)
    shown.show({"step": 20, "scores": []})
    assert set_values == {}
    shown.show({"step": 25, "loss": 0.5, "images_per_s": 64.0, "seconds": 10.0})
    assert set_values == {
        ("cm_ray_training_step", "digits"): 25.0,
        ("cm_ray_training_loss", "digits"): 0.5,
        ("cm_ray_training_images_per_second", "digits"): 64.0,
        ("cm_ray_training_seconds_left", "digits"): 30.0,
    }
