"""Known database images and their data directories."""

from __future__ import annotations

from scanner.checks.base import ImageSubject
from scanner.errors import UsageError
from scanner.model.reference import Reference
from scanner.model.workload import Workload

_POSTGRES = ("/var/lib/postgresql", "/bitnami/postgresql")
_MYSQL = ("/var/lib/mysql", "/bitnami/mysql", "/bitnami/mariadb")
_DATABASES = {
    "postgres": ("PostgreSQL", _POSTGRES),
    "postgresql": ("PostgreSQL", _POSTGRES),
    "postgis": ("PostgreSQL", _POSTGRES),
    "timescaledb": ("PostgreSQL", _POSTGRES),
    "mysql": ("MySQL", _MYSQL),
    "mysql-server": ("MySQL", _MYSQL),
    "mariadb": ("MariaDB", _MYSQL),
    "percona": ("Percona Server", _MYSQL),
    "mongo": ("MongoDB", ("/data/db", "/bitnami/mongodb")),
    "mongodb": ("MongoDB", ("/data/db", "/bitnami/mongodb")),
    "redis": ("Redis", ("/data", "/bitnami/redis")),
    "valkey": ("Valkey", ("/data", "/bitnami/valkey")),
    "elasticsearch": ("Elasticsearch", ("/usr/share/elasticsearch/data", "/bitnami/elasticsearch")),
    "opensearch": ("OpenSearch", ("/usr/share/opensearch/data",)),
    "cassandra": ("Cassandra", ("/var/lib/cassandra", "/bitnami/cassandra")),
    "influxdb": ("InfluxDB", ("/var/lib/influxdb", "/var/lib/influxdb2")),
    "couchdb": ("CouchDB", ("/opt/couchdb/data",)),
    "neo4j": ("Neo4j", ("/data",)),
    "rabbitmq": ("RabbitMQ", ("/var/lib/rabbitmq", "/bitnami/rabbitmq")),
    "kafka": ("Kafka", ("/var/lib/kafka", "/bitnami/kafka", "/kafka")),
    "etcd": ("etcd", ("/etcd-data", "/var/lib/etcd", "/bitnami/etcd")),
    "clickhouse-server": ("ClickHouse", ("/var/lib/clickhouse",)),
}


def database_of(workload: Workload, image: ImageSubject | None) -> tuple[str, tuple[str, ...]] | None:
    """Return name and data directories of the database in a workload's image, or None if it is not a known one."""
    try:
        # By the last part of the name only: most installations pull from a mirror or a namespace of their own. A
        # custom name is not recognised, so that the check is not applicable instead of wrong.
        name = Reference.parse(workload.image).name.rpartition("/")[2]
    except UsageError:
        return None
    return _DATABASES.get(name)
