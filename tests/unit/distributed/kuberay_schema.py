"""What of KubeRay's `ray.io/v1` (1.7) the files in cluster/ use: fields by their names, nothing else allowed."""

STRING, TEXT_MAP = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
COUNT, FLAG = {"type": "integer", "minimum": 0}, {"type": "boolean"}
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}


def section(required, **properties):
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def listed(item):
    return {"type": "array", "items": item, "minItems": 1}


NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"}
METADATA = section(["name"], name=NAME, namespace=NAME, labels=TEXT_MAP, annotations=TEXT_MAP)
RESOURCES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": QUANTITY},
    "required": ["cpu", "memory"],
}
CONTAINER = section(
    ["name", "image", "resources"],
    name=NAME,
    image=STRING,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    env=listed(section(["name", "value"], name=STRING, value=STRING)),
    ports=listed(section(["containerPort", "name"], containerPort={"type": "integer"}, name=NAME)),
    resources=section(["requests", "limits"], requests=RESOURCES, limits=RESOURCES),
    volumeMounts=listed(section(["name", "mountPath"], name=NAME, mountPath={"type": "string", "pattern": "^/"})),
)
VOLUME = section(["name"], name=NAME, persistentVolumeClaim=section(["claimName"], claimName=NAME))
POD = section(
    ["containers"],
    containers=listed(CONTAINER),
    volumes=listed(VOLUME),
    securityContext=section([], runAsNonRoot=FLAG, runAsUser=COUNT, fsGroup=COUNT),
    serviceAccountName=NAME,
    nodeSelector=TEXT_MAP,
)
TEMPLATE = section(["spec"], metadata=METADATA, spec=POD)
HEAD = section(
    ["rayStartParams", "template"],
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    rayStartParams=TEXT_MAP,
    template=TEMPLATE,
)
WORKERS = section(
    ["groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"],
    groupName=NAME,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    rayStartParams=TEXT_MAP,
    template=TEMPLATE,
)
AUTOSCALER = section(
    [],
    version={"enum": ["v1", "v2"]},
    idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
)
CLUSTER = section(
    ["headGroupSpec", "workerGroupSpecs", "rayVersion"],
    rayVersion=STRING,
    authOptions=section(["mode"], mode={"enum": ["token", "disabled"]}, secretName=NAME),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=AUTOSCALER,
    headGroupSpec=HEAD,
    workerGroupSpecs=listed(WORKERS),
    suspend=FLAG,
)
JOB = section(
    ["entrypoint", "rayClusterSpec"],
    entrypoint=STRING,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    runtimeEnvYAML=STRING,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    activeDeadlineSeconds=COUNT,
    preRunningDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    suspend=FLAG,
    rayClusterSpec=CLUSTER,
)
SCHEMAS = {
    kind: section(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )
    for kind, spec in (("RayCluster", CLUSTER), ("RayJob", JOB))
}
