"""The Deployment of deploy/ with some of its components, as kustomize renders it: JSON patches of one resource."""

import yaml

from tests.support.sources import ROOT

DEPLOY = ROOT / "deploy"


def component_names():
    return sorted(path.parent.name for path in (DEPLOY / "components").glob("*/kustomization.yaml"))


def with_components(*names):
    """The Deployment after the patches of these components, in this order."""
    deployment = yaml.safe_load((DEPLOY / "kubernetes" / "deployment.yaml").read_text())
    for name in names:
        component = yaml.safe_load((DEPLOY / "components" / name / "kustomization.yaml").read_text())
        assert component["kind"] == "Component"
        for patch in component["patches"]:
            assert patch["target"] == {"kind": deployment["kind"], "name": deployment["metadata"]["name"]}
            for operation in yaml.safe_load(patch["patch"]):
                _apply(deployment, **operation)
    return deployment


def _apply(document, op, path, value=None):
    """One operation of RFC 6902."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    if op == "add" and isinstance(document, list):
        assert last == "-", "only additions to the end of a list are used"
        document.append(value)
    elif op == "remove":
        del document[last]
    else:
        assert op == "add" or (op == "replace" and last in document)
        document[last] = value
