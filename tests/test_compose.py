"""docker-compose.yml is valid, and speaks of images and settings that exist.

The compose specification's JSON schema is the one that the ``check-jsonschema`` package carries.
"""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def validator() -> Validator:
    file = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(file.read_text())
    return validator_for(schema)(schema)


def docker_stages() -> set[str]:
    return set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE))


def test_the_file_follows_the_compose_specification(compose: dict[str, Any], validator: Validator) -> None:
    assert [error.message for error in validator.iter_errors(compose)] == []


def test_the_schema_refuses_a_misspelt_key(compose: dict[str, Any], validator: Validator) -> None:
    broken = {**compose, "services": {"api": {"imagee": "x"}}}
    assert not validator.is_valid(broken)


def test_it_names_the_five_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "redis", "api", "worker-cpu", "worker-gpu"}


def test_every_build_target_is_a_stage_of_the_dockerfile(compose: dict[str, Any]) -> None:
    targets = {service["build"]["target"] for service in compose["services"].values() if "build" in service}
    assert targets == {"api", "worker-cpu", "worker-gpu"}
    assert targets <= docker_stages()


def test_what_others_wait_for_has_a_healthcheck(compose: dict[str, Any]) -> None:
    services = compose["services"]
    awaited = {
        name
        for service in services.values()
        for name, need in service.get("depends_on", {}).items()
        if need["condition"] == "service_healthy"
    }
    assert awaited == {"postgres", "redis", "api"}
    assert all("healthcheck" in services[name] for name in awaited)


def test_every_mounted_volume_is_declared_and_used(compose: dict[str, Any]) -> None:
    mounted = {mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])}
    assert mounted == set(compose["volumes"])


def test_the_api_and_the_workers_share_database_broker_and_files(compose: dict[str, Any]) -> None:
    shared = ("QUANTSIEVE_DATABASE_URL", "QUANTSIEVE_BROKER_URL", "QUANTSIEVE_BLOB_URL")
    for name in ("worker-cpu", "worker-gpu"):
        worker, api = compose["services"][name]["environment"], compose["services"]["api"]["environment"]
        assert {key: worker[key] for key in shared} == {key: api[key] for key in shared}


def test_only_the_gpu_worker_needs_a_profile(compose: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    assert profiles == {"worker-gpu": ["gpu"]}


@pytest.mark.parametrize("source", ["docker-compose.yml", "Dockerfile"])
def test_every_variable_is_a_setting(source: str) -> None:
    from service.settings import Settings

    settings = {f"QUANTSIEVE_{name.upper()}" for name in Settings.model_fields}
    used = set(re.findall(r"QUANTSIEVE_[A-Z_]+", (ROOT / source).read_text()))
    assert used
    assert used <= settings


def test_the_api_is_published_on_the_loopback_address_only(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8080:8080"]


def test_the_api_requires_keys_and_the_workers_do_not_know_the_pepper(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["api"]["environment"]["QUANTSIEVE_REQUIRE_KEYS"] == "true"
    knowing = [name for name, each in services.items() if "QUANTSIEVE_KEY_PEPPER" in each.get("environment", {})]
    assert knowing == ["api"]
