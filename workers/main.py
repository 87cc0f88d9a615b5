"""The worker's entry: ``python -m workers.main`` serves every queue that this machine is capable of.

``--capabilities`` prints what the machine can run as JSON and ends; ``--sandbox``, what confines the processes that
open files here; ``--verify-tensorrt`` checks the TensorRT backend by building engines.
"""

import argparse
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until it is asked to stop."""
    parser = argparse.ArgumentParser(prog="quantsieve worker", description=__doc__)
    parser.add_argument("--capabilities", action="store_true", help="print what this machine can run, and end")
    parser.add_argument("--sandbox", action="store_true", help="print what confines the files' processes, and end")
    parser.add_argument("--verify-tensorrt", action="store_true", help="build tiny engines, compare them, and end")
    parser.add_argument("--queues", help="serve only these queues, comma separated")
    options = parser.parse_args(arguments)
    if options.capabilities:
        from service.settings import Settings
        from workers.backends.protocol import PluginLibraries
        from workers.capabilities import probe, to_document

        settings = Settings()
        libraries = PluginLibraries(settings.custom_op_libraries, settings.tensorrt_plugin_libraries)
        print(json.dumps([to_document(each) for each in probe(libraries)]))
        return
    if options.sandbox:
        print(json.dumps(_measures()))
        return
    if options.verify_tensorrt:
        print(json.dumps(_tensorrt_checks()))
        return
    _serve(options.queues)


def _measures() -> list[dict[str, object]]:
    from service.settings import Settings
    from workers.sandbox.measures import to_document
    from workers.sandbox.nothing import measures_here
    from workers.sandbox.policy import Policy

    policy = Policy.of(Settings())
    return to_document(measures_here(replace(policy, demand="auto")))  # what does not hold is told, not refused


def _tensorrt_checks() -> list[dict[str, object]]:
    try:
        from workers.backends.tensorrt.verify import verify_installed
    except ImportError as error:
        return [{"way": "-", "variant": "-", "good": False, "found": f"the package {error.name} is not installed"}]
    return [asdict(each) for each in verify_installed()]


def _serve(queues: str | None) -> None:
    from service.logs import log_to_stderr
    from service.settings import Settings
    from service.store.identifiers import Prefix, new_id
    from workers.capabilities import PUBLISHED, probe_in_child, queues_of, sandbox_in_child, to_document
    from workers.sandbox.measures import missing, told
    from workers.sandbox.measures import to_document as measures_to_document

    settings, worker_id = Settings(), new_id(Prefix.WORKER)
    log_to_stderr(settings.log_format, logging.INFO, worker=worker_id)
    with ThreadPoolExecutor(1) as beside:
        confined = beside.submit(sandbox_in_child)
        capabilities, measures = probe_in_child(), confined.result()
    for library in (each for capability in capabilities for each in capability.libraries):
        if library.reason is not None:
            logging.warning("the plugin library %s is left out: %s", library.path, library.reason)
    lacking = [each for each in measures if not each.holds]
    if lacking:
        logging.warning("what opens files here is not confined in all ways: %s", told(lacking))
    if settings.sandbox == "required" and (lost := missing(measures)):
        raise SystemExit(f"the setting sandbox is 'required', and this host does not permit it: {told(lost)}")
    # the presence thread of this process publishes them
    os.environ["QUANTSIEVE_MEASURES"] = json.dumps(measures_to_document(measures))
    os.environ[PUBLISHED] = json.dumps([to_document(each) for each in capabilities])
    os.environ["QUANTSIEVE_WORKER_ID"] = worker_id
    # SIGTERM ends the running unit too, and gives it back (celery_app.py); SIGINT lets it end first
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    from workers.celery_app import app

    chosen = queues or ",".join(queues_of(capabilities, settings.device))
    flags = ["--pool=prefork", "--concurrency=1", "--loglevel=INFO"]
    # liveness is in the database: the broker's own gossip and heartbeats only add traffic
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", f"--queues={chosen}", *flags, *quiet])


if __name__ == "__main__":
    main()
