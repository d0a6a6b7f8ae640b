"""Sources of workloads (Kubernetes, Docker, Compose and others), each parsed into ``Workload``."""
