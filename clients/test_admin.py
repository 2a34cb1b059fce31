"""Admin calls of three clients against one server: they do what they say, and they agree."""

import json
import time

import kafka
import pytest
import server as servers
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from kafka.admin import ConfigResource as PythonConfigResource
from peers.base import PeerError, Record
from waiting import wait_until


@pytest.fixture(scope="module")
def java_admin(node, java):
    return lambda call, **arguments: java.admin(node.bootstrap, call, **arguments)


@pytest.fixture(scope="module")
def librdkafka(node):
    return AdminClient({"bootstrap.servers": node.bootstrap, "log_level": 0})


@pytest.fixture(scope="module")
def kafka_python(node):
    admin = kafka.KafkaAdminClient(bootstrap_servers=node.bootstrap)
    yield admin
    admin.close()


def result(futures):
    """The one answer of a librdkafka call about one thing."""
    (future,) = futures.values()
    return future.result(20)


def refused(name, call, *arguments, **named):
    with pytest.raises(PeerError) as caught:
        call(*arguments, **named)
    assert caught.value.name == name, caught.value


def shape(admin, topic):
    """Partitions of a topic as (partition, leader, replicas, in sync), by one of the three."""
    if isinstance(admin, AdminClient):
        found = admin.list_topics(topic, timeout=20).topics[topic]
        return sorted((p.id, p.leader, len(p.replicas), len(p.isrs)) for p in found.partitions.values())
    if isinstance(admin, kafka.KafkaAdminClient):
        (found,) = admin.describe_topics([topic])
        return sorted((p["partition_index"], p["leader_id"], len(p["replica_nodes"]), len(p["isr_nodes"])) for p in found["partitions"])
    return sorted((p["partition"], p["leader"], p["replicas"], p["isr"]) for p in admin("describe_topic", topic=topic)["partitions"])


def all_shapes(java_admin, librdkafka, kafka_python, topic):
    shapes = [shape(admin, topic) for admin in (java_admin, librdkafka, kafka_python)]
    assert shapes[0] == shapes[1] == shapes[2]
    return shapes[0]


def test_topics_are_made_described_grown_and_dropped(java_admin, librdkafka, kafka_python, fresh):
    by_java, by_rdkafka, by_python = fresh("java"), fresh("rdkafka"), fresh("python")
    assert java_admin("create_topic", topic=by_java, partitions=3)["partitions"] == 3
    result(librdkafka.create_topics([NewTopic(by_rdkafka, 3, 1)]))
    kafka_python.create_topics({by_python: {"num_partitions": 3, "replication_factor": 1}})
    for topic in (by_java, by_rdkafka, by_python):
        shapes = all_shapes(java_admin, librdkafka, kafka_python, topic)
        assert [(partition, replicas, in_sync) for partition, _, replicas, in_sync in shapes] == [(index, 1, 1) for index in range(3)]
    listed = set(java_admin("list_topics"))
    assert {by_java, by_rdkafka, by_python} <= listed == set(kafka_python.list_topics()) - {"__consumer_offsets", "__transaction_state"}
    java_admin("create_partitions", topic=by_rdkafka, partitions=5)
    result(librdkafka.create_partitions([NewPartitions(by_python, 5)]))
    kafka_python.create_partitions({by_java: 5})
    for topic in (by_java, by_rdkafka, by_python):
        assert len(all_shapes(java_admin, librdkafka, kafka_python, topic)) == 5
    java_admin("delete_topic", topic=by_python)
    result(librdkafka.delete_topics([by_java]))
    kafka_python.delete_topics([by_rdkafka])
    wait_until(lambda: not {by_java, by_rdkafka, by_python} & set(java_admin("list_topics")), 10, "the topics are gone")


def test_validate_only_makes_nothing(java_admin, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=2, validate_only=True)
    assert topic not in java_admin("list_topics")
    java_admin("create_topic", topic=topic, partitions=2)
    java_admin("create_partitions", topic=topic, partitions=4, validate_only=True)
    assert len(java_admin("describe_topic", topic=topic)["partitions"]) == 2
    java_admin("alter_configs", topic=topic, set={"retention.ms": "1234"}, validate_only=True)
    assert java_admin("describe_configs", topic=topic)["retention.ms"]["value"] == "604800000"


def test_wrong_topics_are_refused_by_name(java_admin, librdkafka, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=2)
    refused("TopicExistsException", java_admin, "create_topic", topic=topic, partitions=2)
    refused("InvalidTopicException", java_admin, "create_topic", topic="no spaces", partitions=1)
    refused("InvalidTopicException", java_admin, "create_topic", topic="x" * 250, partitions=1)
    refused("InvalidTopicException", java_admin, "create_topic", topic="..", partitions=1)
    refused("InvalidPartitionsException", java_admin, "create_topic", topic=fresh(), partitions=0)
    refused("InvalidReplicationFactorException", java_admin, "create_topic", topic=fresh(), partitions=1, replication=0)
    refused("InvalidConfigurationException", java_admin, "create_topic", topic=fresh(), partitions=1, configs={"no.such.setting": "1"})
    refused("InvalidConfigurationException", java_admin, "create_topic", topic=fresh(), partitions=1, configs={"retention.ms": "soon"})
    refused("UnknownTopicOrPartitionException", java_admin, "delete_topic", topic=fresh())
    refused("UnknownTopicOrPartitionException", java_admin, "describe_topic", topic=fresh())
    refused("InvalidPartitionsException", java_admin, "create_partitions", topic=topic, partitions=1)
    refused("InvalidPartitionsException", java_admin, "create_partitions", topic=topic, partitions=2)
    refused("UnknownTopicOrPartitionException", java_admin, "create_partitions", topic=fresh(), partitions=2)


def test_a_topic_made_again_is_another_topic(java_admin, java, node, fresh):
    topic = fresh()
    first = java_admin("create_topic", topic=topic, partitions=1)["id"]
    java.produce(node.bootstrap, topic, [Record(None, b"old")])
    java_admin("delete_topic", topic=topic)
    second = wait_until(lambda: try_create(java_admin, topic), 20)
    assert second != first
    assert java_admin("list_offsets", topic=topic, at="latest")[0] == 0
    assert java.produce(node.bootstrap, topic, [Record(None, b"new")]) == [0]


def try_create(java_admin, topic):
    try:
        return java_admin("create_topic", topic=topic, partitions=1)["id"]
    except PeerError as refusal:
        assert refusal.name == "TopicExistsException"
        return None


def test_configs_have_values_types_and_sources(java_admin, librdkafka, kafka_python, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=1, configs={"retention.ms": "86400000", "cleanup.policy": "compact"})
    found = java_admin("describe_configs", topic=topic)
    assert found["retention.ms"] == {
        "value": "86400000",
        "source": "DYNAMIC_TOPIC_CONFIG",
        "type": "LONG",
        "default": False,
        "read_only": False,
    }
    assert found["cleanup.policy"]["value"] == "compact" and found["cleanup.policy"]["type"] == "LIST"
    assert found["segment.ms"] == {"value": "604800000", "source": "DEFAULT_CONFIG", "type": "LONG", "default": True, "read_only": False}
    names = set(found)
    # every setting that a topic of Apache Kafka 4.1 has
    assert {
        "cleanup.policy",
        "compression.gzip.level",
        "compression.lz4.level",
        "compression.type",
        "compression.zstd.level",
        "delete.retention.ms",
        "file.delete.delay.ms",
        "flush.messages",
        "flush.ms",
        "follower.replication.throttled.replicas",
        "index.interval.bytes",
        "leader.replication.throttled.replicas",
        "local.retention.bytes",
        "local.retention.ms",
        "max.compaction.lag.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "min.cleanable.dirty.ratio",
        "min.compaction.lag.ms",
        "min.insync.replicas",
        "preallocate",
        "remote.log.copy.disable",
        "remote.log.delete.on.disable",
        "remote.storage.enable",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.index.bytes",
        "segment.jitter.ms",
        "segment.ms",
        "unclean.leader.election.enable",
    } <= names
    by_rdkafka = result(librdkafka.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]))
    assert {name: entry.value for name, entry in by_rdkafka.items()} == {name: entry["value"] for name, entry in found.items()}
    by_python = kafka_python.describe_configs([PythonConfigResource("topic", topic)], config_filter="all")
    values = by_python["topic"][topic]
    assert {name: values[name]["value"] for name in names} == {name: entry["value"] for name, entry in found.items()}


def test_configs_are_altered(java_admin, librdkafka, kafka_python, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=1)

    def value(name):
        return java_admin("describe_configs", topic=topic)[name]["value"]

    java_admin("alter_configs", topic=topic, set={"retention.ms": "1000000"})
    assert value("retention.ms") == "1000000"
    result(
        librdkafka.incremental_alter_configs(
            [
                ConfigResource(
                    ResourceType.TOPIC,
                    topic,
                    incremental_configs=[ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET)],
                )
            ]
        )
    )
    assert (value("retention.ms"), value("max.message.bytes")) == ("1000000", "2000000")
    kafka_python.alter_configs([PythonConfigResource("topic", topic, configs={"segment.ms": "3600000"})], incremental=True)
    assert (value("retention.ms"), value("max.message.bytes"), value("segment.ms")) == ("1000000", "2000000", "3600000")
    java_admin("alter_configs", topic=topic, append={"cleanup.policy": "compact"})
    assert set(value("cleanup.policy").split(",")) == {"delete", "compact"}
    java_admin("alter_configs", topic=topic, subtract={"cleanup.policy": "delete"})
    assert value("cleanup.policy") == "compact"
    java_admin("alter_configs", topic=topic, set={"retention.ms": None, "cleanup.policy": None})
    assert (value("retention.ms"), value("cleanup.policy")) == ("604800000", "delete")
    refused("InvalidConfigurationException", java_admin, "alter_configs", topic=topic, set={"no.such.setting": "1"})
    refused("UnknownTopicOrPartitionException", java_admin, "alter_configs", topic=fresh(), set={"retention.ms": "1"})
    # The older call replaces all settings at once.
    result(librdkafka.alter_configs([ConfigResource(ResourceType.TOPIC, topic, set_config={"retention.ms": "5000000"})]))
    assert (value("retention.ms"), value("max.message.bytes"), value("segment.ms")) == ("5000000", "1048588", "604800000")


def test_broker_configs_and_config_resources(java_admin, librdkafka, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=1)
    assert topic in java_admin("list_config_resources")
    cluster = java_admin("describe_cluster")
    node_id = cluster["nodes"][0].split("@")[0]
    found = java_admin("describe_configs", resource="BROKER", name=node_id)
    assert found, "a broker describes some settings"
    by_rdkafka = result(librdkafka.describe_configs([ConfigResource(ResourceType.BROKER, node_id)]))
    assert set(by_rdkafka) == set(found)


def test_cluster_is_described_alike(node, java_admin, librdkafka, kafka_python):
    by_java = java_admin("describe_cluster")
    by_rdkafka = librdkafka.describe_cluster().result(20)
    by_python = kafka_python.describe_cluster()
    assert by_java["id"] == by_rdkafka.cluster_id == by_python["cluster_id"]
    assert by_java["nodes"] == [f"{by_rdkafka.nodes[0].id}@{by_rdkafka.nodes[0].host}:{by_rdkafka.nodes[0].port}"]
    assert by_java["nodes"][0].endswith(f"@{node.bootstrap}"), "the address that the client connected to"
    assert by_java["controller"] == by_rdkafka.controller.id == by_python["controller_id"]


def test_records_are_deleted_up_to_an_offset(node, java, java_admin, librdkafka, kafka_python, fresh, peers):
    topic = fresh()
    java.produce(node.bootstrap, topic, [Record(None, str(index).encode(), timestamp=1_700_000_000_000 + index) for index in range(10)])
    assert java_admin("delete_records", topic=topic, before=3) == 3
    assert java_admin("list_offsets", topic=topic, at="earliest")[0] == 3
    result(librdkafka.delete_records([TopicPartition(topic, 0, 5)]))
    assert java_admin("list_offsets", topic=topic, at="earliest")[0] == 5
    kafka_python.delete_records({kafka.TopicPartition(topic, 0): 7})
    assert java_admin("list_offsets", topic=topic, at="earliest")[0] == 7
    got = java.consume(node.bootstrap, {topic: 3})
    assert [record.offset for record in got[topic]] == [7, 8, 9]
    refused("OffsetOutOfRangeException", java_admin, "delete_records", topic=topic, before=11)
    assert java_admin("delete_records", topic=topic, before=-1) == 10
    assert java_admin("list_offsets", topic=topic, at="earliest")[0] == java_admin("list_offsets", topic=topic, at="latest")[0] == 10


def test_offsets_are_listed_alike(node, java, java_admin, librdkafka, kafka_python, fresh):
    topic, base = fresh(), 1_700_000_000_000
    times = [0, 10, 30, 20, 5]
    # one batch a record, and one batch with all again
    for time_ms in times:
        java.produce(node.bootstrap, topic, [Record(None, b"x", timestamp=base + time_ms)])
    java.produce(node.bootstrap, topic, [Record(None, b"x", timestamp=base + 100 + time_ms) for time_ms in times], "zstd")
    wanted = {
        "earliest": 0,
        "latest": 10,
        "max_timestamp": 7,
        str(base): 0,
        str(base + 11): 2,
        str(base + 20): 2,
        str(base + 101): 6,
        str(base + 111): 7,
        str(base + 131): -1,
    }
    specs = {"earliest": OffsetSpec.earliest(), "latest": OffsetSpec.latest(), "max_timestamp": OffsetSpec.max_timestamp()}
    for at, offset in wanted.items():
        assert java_admin("list_offsets", topic=topic, at=at)[0] == offset, at
        spec = specs.get(at) or OffsetSpec.for_timestamp(int(at))
        assert result(librdkafka.list_offsets({TopicPartition(topic, 0): spec})).offset == offset, at
    # the time of the found record is told, but not for the ends
    assert java_admin("list_offsets", topic=topic, at="max_timestamp") == [7, base + 130]
    assert java_admin("list_offsets", topic=topic, at=str(base + 11)) == [2, base + 30]
    assert java_admin("list_offsets", topic=topic, at="earliest_local")[0] == 0
    consumer = kafka.KafkaConsumer(bootstrap_servers=node.bootstrap)
    partition = kafka.TopicPartition(topic, 0)
    assert consumer.offsets_for_times({partition: base + 11})[partition].offset == 2
    assert consumer.beginning_offsets([partition])[partition] == 0 and consumer.end_offsets([partition])[partition] == 10
    consumer.close()


def test_groups_are_listed_described_and_deleted(node, peers, java_admin, librdkafka, kafka_python, fresh):
    topic, classic, beating = fresh(), fresh("classic"), fresh("beating")
    java_admin("create_topic", topic=topic, partitions=2)
    members = {
        classic: peers("confluent-kafka").join(node.bootstrap, classic, [topic], protocol="classic", instance="the-one"),
        beating: peers("confluent-kafka").join(node.bootstrap, beating, [topic], protocol="consumer"),
    }
    both = [f"{topic}-0", f"{topic}-1"]
    for member in members.values():
        wait_until(lambda: member.assignment == both, 30)
    kinds = {classic: "CLASSIC", beating: "CONSUMER"}
    for group, kind in kinds.items():
        wait_until(lambda: java_admin("list_groups")[group]["state"] == "STABLE", 15, lambda: java_admin("list_groups")[group])
        assert java_admin("list_groups")[group] == {"type": kind, "protocol": "consumer", "state": "STABLE"}
        described = java_admin("describe_group", group=group)
        assert (described["state"], described["type"]) == ("STABLE", kind)
        assert [member["assignment"] for member in described["members"]] == [both]
        by_rdkafka = result(librdkafka.describe_consumer_groups([group]))
        assert by_rdkafka.state.name == "STABLE" and by_rdkafka.members[0].member_id == described["members"][0]["member_id"]
        assert sorted((p.topic, p.partition) for p in by_rdkafka.members[0].assignment.topic_partitions) == [(topic, 0), (topic, 1)]
    listed = {one.group_id: one for one in librdkafka.list_consumer_groups().result(20).valid}
    assert listed[classic].type.name == "CLASSIC" and listed[beating].type.name == "CONSUMER"
    assert {classic, beating} <= {one["group_id"] for one in kafka_python.list_groups()}
    assert java_admin("describe_group", group=classic)["members"][0]["instance"] == "the-one"
    for group, member in members.items():
        refused("GroupNotEmptyException", java_admin, "delete_group", group=group)
        refused("UnknownMemberIdException", java_admin, "alter_group_offsets", group=group, topic=topic, offset=1)
        member.leave()
    java_admin("remove_member", group=classic, instance="the-one")
    for group in members:
        wait_until(lambda: java_admin("describe_group", group=group)["state"] == "EMPTY", 15)
    java_admin("delete_group", group=classic)
    result(librdkafka.delete_consumer_groups([beating]))
    assert not {classic, beating} & set(java_admin("list_groups"))
    refused("GroupIdNotFoundException", java_admin, "delete_group", group=classic)
    refused("GroupIdNotFoundException", java_admin, "describe_group", group=classic)


def test_group_offsets_are_listed_altered_and_deleted(node, java_admin, librdkafka, kafka_python, fresh):
    from confluent_kafka import ConsumerGroupTopicPartitions

    topic, group = fresh(), fresh("group")
    java_admin("create_topic", topic=topic, partitions=3)
    java_admin("alter_group_offsets", group=group, topic=topic, partition=0, offset=11, metadata="by java")
    result(librdkafka.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1, 22)])]))
    kafka_python.alter_group_offsets(group, {kafka.TopicPartition(topic, 2): kafka.structs.OffsetAndMetadata(33, "by python", -1)})
    wanted = {f"{topic}-0": 11, f"{topic}-1": 22, f"{topic}-2": 33}
    assert java_admin("list_group_offsets", group=group) == wanted
    listed = result(librdkafka.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]))
    assert {f"{p.topic}-{p.partition}": p.offset for p in listed.topic_partitions} == wanted
    by_python = kafka_python.list_group_offsets([group])[group]
    assert {f"{p.topic}-{p.partition}": found.offset for p, found in by_python.items()} == wanted
    assert by_python[kafka.TopicPartition(topic, 0)].metadata == "by java"
    java_admin("delete_group_offsets", group=group, topic=topic, partition=1)
    assert set(java_admin("list_group_offsets", group=group)) == {f"{topic}-0", f"{topic}-2"}
    assert java_admin("list_groups")[group]["state"] == "EMPTY"
    java_admin("delete_topic", topic=topic)
    wait_until(lambda: java_admin("list_group_offsets", group=group) == {}, 20, "offsets of a dropped topic go")


def test_the_rest_of_the_admin_face(node, java, java_admin, fresh):
    topic = fresh()
    java_admin("create_topic", topic=topic, partitions=2)
    java.produce(node.bootstrap, topic, [Record(None, b"x")])
    assert java_admin("describe_log_dirs", topic=topic) == [f"{topic}-0", f"{topic}-1"]
    (producer,) = java_admin("describe_producers", topic=topic)
    assert producer["id"] >= 0 and producer["epoch"] == 0 and producer["sequence"] == 0
    assert java_admin("list_transactions") == 0
    assert java_admin("list_reassignments") == 0
    assert java_admin("elect_leaders", topic=topic) == ["ElectionNotNeededException"]
    refused("SecurityDisabledException", java_admin, "describe_acls")


def test_topics_and_offsets_survive_a_restart(firth, java, fresh):
    """What an admin client did is still done after the server was killed."""
    topic, group = fresh(), fresh("group")

    def admin(call, **arguments):
        return java.admin(firth.bootstrap, call, **arguments)

    made = admin("create_topic", topic=topic, partitions=3, configs={"retention.ms": "86400000"})
    dropped = fresh()
    admin("create_topic", topic=dropped, partitions=1)
    admin("delete_topic", topic=dropped)
    java.produce(firth.bootstrap, topic, [Record(None, b"x")] * 5)
    admin("delete_records", topic=topic, before=2)
    admin("alter_group_offsets", group=group, topic=topic, partition=2, offset=4)
    firth.kill9()
    firth.start()
    found = wait_until(lambda: described(admin, topic), 20)
    assert found["id"] == made["id"] and len(found["partitions"]) == 3
    assert dropped not in admin("list_topics")
    assert admin("describe_configs", topic=topic)["retention.ms"]["value"] == "86400000"
    assert admin("list_offsets", topic=topic, at="latest")[0] == 5
    if not servers.PEER_COMMAND:  # Apache Kafka notes the start of a log on disk only once a minute
        assert admin("list_offsets", topic=topic, at="earliest")[0] == 2
    assert admin("list_group_offsets", group=group) == {f"{topic}-2": 4}


def described(admin, topic):
    try:
        return admin("describe_topic", topic=topic)
    except PeerError:
        return None
