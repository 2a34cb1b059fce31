"""Consumer groups of real clients: both protocols, both in one group, static members, restarts of either side."""

import pytest
import server as servers
from peers.base import Record
from waiting import wait_until

PARTITIONS = 6
REBALANCED = 45  # seconds within which a group must have settled; KIP-848 members hear of changes every 5 s


@pytest.fixture
def topic(node, java, fresh):
    name = fresh("groups")
    java.admin(node.bootstrap, "create_topic", topic=name, partitions=PARTITIONS)
    return name


@pytest.fixture
def members():
    """Members that leave when the test ends."""
    joined = []
    yield joined
    for member in joined:
        member.leave()


def every_partition(topic, partitions=PARTITIONS):
    return sorted(f"{topic}-{partition}" for partition in range(partitions))


def shared_fairly(members, topic, partitions=PARTITIONS):
    """True when the members hold every partition exactly once, none more than one above another."""
    shares = [member.assignment for member in members]
    held = sorted(partition for share in shares for partition in share)
    sizes = [len(share) for share in shares]
    return held == every_partition(topic, partitions) and max(sizes) - min(sizes) <= 1


def settled(members, topic):
    wait_until(
        lambda: shared_fairly(members, topic),
        REBALANCED,
        lambda: f"{[(m.name, m.state()['assignment'], m.state()['events']) for m in members]}",
    )


def publish(peer, bootstrap, topic, tag, partitions=PARTITIONS, count=3):
    """`count` records to every partition; returns all values."""
    values = set()
    for partition in range(partitions):
        records = [Record(None, f"{tag}-{partition}-{index}".encode()) for index in range(count)]
        peer.produce(bootstrap, topic, records, partition=partition)
        values |= {record.value for record in records}
    return values


def read_by(members):
    return [value for member in members for value in member.values()]


def commit_failed(member):
    return any(event[0] == "commit failed" for event in member.state()["events"])


def all_read(members, values):
    wait_until(lambda: values <= set(read_by(members)), 30, lambda: f"missing {sorted(values - set(read_by(members)))[:5]}")


GROUPS = [
    ("confluent-kafka", "classic", {}),
    ("confluent-kafka", "classic", {"partition.assignment.strategy": "cooperative-sticky"}),
    ("confluent-kafka", "consumer", {}),
    ("kafka-python", "classic", {}),
    ("aiokafka", "classic", {}),
    ("kafkajs", "classic", {}),
    ("java", "classic", {}),
    ("java", "consumer", {}),
]


@pytest.mark.parametrize("name, protocol, config", GROUPS, ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value)
def test_two_three_two_members(node, peers, topic, fresh, members, name, protocol, config):
    """Two members share, a third takes its part, and when it leaves the two have all again; nothing is read by nobody."""
    peer, group = peers(name), fresh("group")
    values = publish(peer, node.bootstrap, topic, "before")
    for _ in range(2):
        members.append(peer.join(node.bootstrap, group, [topic], protocol=protocol, **config))
    settled(members, topic)
    all_read(members, values)
    third = peer.join(node.bootstrap, group, [topic], protocol=protocol, **config)
    members.append(third)
    settled(members, topic)
    values |= publish(peer, node.bootstrap, topic, "three")
    all_read(members, values)
    third.leave()
    members.remove(third)
    settled(members, topic)
    publish(peer, node.bootstrap, topic, "after")
    wait_until(
        lambda: len({value for value in read_by(members) if value.startswith(b"after")}) == 3 * PARTITIONS, 30, "all read after the leave"
    )
    # An orderly change of members repeats nothing: what was read was committed before its partition moved. Only a member of the new
    # protocol may be told that its epoch changed while its commit was on the way (KIP-848); it says so, and reads again.
    values, told = read_by([*members, third]), [one for one in (*members, third) if commit_failed(one)]
    assert len(values) == len(set(values)) or (told and protocol == "consumer"), f"a record was read twice; {told} could not commit"


@pytest.mark.parametrize("mix", [("confluent-kafka", "java"), ("kafka-python", "aiokafka"), ("java", "kafkajs")], ids="+".join)
def test_classic_members_of_two_kinds_share(node, peers, topic, fresh, members, mix):
    """Clients by different people agree on one assignor by name and on the bytes of their subscriptions."""
    group = fresh("group")
    assignors = {
        "confluent-kafka": {"partition.assignment.strategy": "range"},
        "java": {"partition.assignment.strategy": "org.apache.kafka.clients.consumer.RangeAssignor"},
    }
    if "kafkajs" in mix:
        # kafkajs knows one assignor, its own round robin; no other client has it, so the group cannot form
        members.append(peers("kafkajs").join(node.bootstrap, group, [topic]))
        settled(members, topic)
        other = peers("java").join(node.bootstrap, group, [topic])
        wait_until(lambda: "InconsistentGroupProtocol" in (other.state()["error"] or ""), 30, lambda: other.state()["error"])
        other.leave()
        settled(members, topic)
        return
    for name in mix:
        members.append(peers(name).join(node.bootstrap, group, [topic], **assignors.get(name, {})))
    settled(members, topic)
    values = publish(peers(mix[0]), node.bootstrap, topic, "mixed")
    all_read(members, values)


@pytest.mark.parametrize(
    "name, protocol", [("confluent-kafka", "classic"), ("java", "classic"), ("confluent-kafka", "consumer"), ("java", "consumer")]
)
def test_static_member_comes_back_to_its_partitions(node, peers, topic, fresh, members, name, protocol):
    """A static member that ends without goodbye and returns within its session gets the same partitions; the other is not disturbed."""
    peer, group = peers(name), fresh("group")
    stays = peer.join(node.bootstrap, group, [topic], protocol=protocol, instance="stays")
    goes = peer.join(node.bootstrap, group, [topic], protocol=protocol, instance="goes")
    members += [stays, goes]
    settled(members, topic)
    held, calm = goes.assignment, len(stays.rebalances)
    goes.leave(remain=True)
    members.remove(goes)
    back = peer.join(node.bootstrap, group, [topic], protocol=protocol, instance="goes")
    members.append(back)
    wait_until(lambda: back.assignment == held, REBALANCED, lambda: f"{back.state()['assignment']} is {held}")
    assert stays.assignment == sorted(set(every_partition(topic)) - set(held))
    assert len(stays.rebalances) == calm, "the member that stayed was rebalanced"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_pattern_subscription_sees_new_topics(node, peers, fresh, members, protocol):
    """KIP-848 sends the expression to the server, classic clients match it themselves; both find a topic made later."""
    java, prefix = peers("java"), fresh("pattern")
    java.admin(node.bootstrap, "create_topic", topic=f"{prefix}.one", partitions=2)
    if protocol == "consumer":
        member = java.join(
            node.bootstrap, fresh("group"), [], protocol=protocol, pattern=f"{prefix}\\..*", **{"metadata.max.age.ms": "1000"}
        )
    else:
        member = peers("confluent-kafka").join(node.bootstrap, fresh("group"), [], protocol=protocol, pattern=f"{prefix}\\..*")
    members.append(member)
    wait_until(lambda: member.assignment == [f"{prefix}.one-0", f"{prefix}.one-1"], REBALANCED, lambda: member.state())
    java.admin(node.bootstrap, "create_topic", topic=f"{prefix}.two", partitions=1)
    wait_until(lambda: f"{prefix}.two-0" in member.assignment, REBALANCED, lambda: member.state())


@pytest.mark.parametrize("name, protocol", [("confluent-kafka", "classic"), ("java", "consumer")])
def test_group_sees_partitions_added(node, peers, java, topic, fresh, members, name, protocol):
    member = peers(name).join(
        node.bootstrap, fresh("group"), [topic], protocol=protocol, **({"metadata.max.age.ms": "1000"} if name == "java" else {})
    )
    members.append(member)
    settled(members, topic)
    java.admin(node.bootstrap, "create_partitions", topic=topic, partitions=PARTITIONS + 2)
    wait_until(lambda: shared_fairly(members, topic, PARTITIONS + 2), REBALANCED, lambda: member.state()["assignment"])


@pytest.mark.parametrize("name", ["java", "confluent-kafka"])
def test_group_goes_up_to_the_consumer_protocol_and_down_again(node, peers, java, topic, fresh, members, name):
    """A rolling change: one classic member more and more replaced by consumer members, both kinds together for a while, and back."""
    peer, group = peers(name), fresh("group")
    config = {"partition.assignment.strategy": "range" if name == "confluent-kafka" else "org.apache.kafka.clients.consumer.RangeAssignor"}
    old = [peer.join(node.bootstrap, group, [topic], protocol="classic", **config) for _ in range(2)]
    members += old
    settled(members, topic)
    values = publish(java, node.bootstrap, topic, "classic")
    all_read(members, values)
    new = peer.join(node.bootstrap, group, [topic], protocol="consumer")
    members.append(new)
    settled(members, topic)
    assert java.admin(node.bootstrap, "describe_group", group=group)["type"] == "CONSUMER"
    values |= publish(java, node.bootstrap, topic, "both")
    all_read(members, values)
    old.pop().leave()
    members.remove(members[1])
    settled(members, topic)
    new.leave()
    members.remove(new)
    settled(members, topic)
    assert java.admin(node.bootstrap, "describe_group", group=group)["type"] == "CLASSIC"
    values |= publish(java, node.bootstrap, topic, "down")
    all_read([*members, new], {value for value in values if value.startswith(b"down")})


@pytest.mark.parametrize("name, protocol", [(name, protocol) for name, protocol, config in GROUPS if not config])
def test_offsets_survive_the_consumer(node, peers, topic, fresh, name, protocol):
    """A new member of the group goes on where the last one committed."""
    peer, group = peers(name), fresh("group")
    first = publish(peer, node.bootstrap, topic, "first")
    member = peer.join(node.bootstrap, group, [topic], protocol=protocol)
    all_read([member], first)
    member.leave()
    second = publish(peer, node.bootstrap, topic, "second")
    again = peer.join(node.bootstrap, group, [topic], protocol=protocol)
    all_read([again], second)
    again.leave()
    assert set(again.values()) == second


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_of_the_server_rebalances_nobody(firth, peers, java, fresh, members, how):
    """Members of both protocols keep their partitions, their ids and their generation over a restart, and offsets are where they were."""
    topic = fresh("groups")
    java.admin(firth.bootstrap, "create_topic", topic=topic, partitions=PARTITIONS)
    kinds = [("confluent-kafka", "classic"), ("confluent-kafka", "consumer"), ("java", "consumer")]
    if not servers.PEER_COMMAND:  # Apache Kafka tells half its topics while it starts, so that the Java leader joins again
        kinds.append(("java", "classic"))
    groups = {}
    for name, protocol in kinds:
        group = fresh("group")
        # Long sessions: what is tested is that the server remembers, not that it is back in time.
        config = {"session.timeout.ms": "45000"} if protocol == "classic" else {}
        if name == "java":
            # The client empties its metadata when its only broker is away (KIP-899), and a leader that knows no topics joins again.
            config["metadata.recovery.strategy"] = "none"
        groups[group] = [peers(name).join(firth.bootstrap, group, [topic], protocol=protocol, **config) for _ in range(2)]
        members += groups[group]
    for both in groups.values():
        settled(both, topic)
    values = publish(java, firth.bootstrap, topic, "before")
    for both in groups.values():
        all_read(both, values)
    committed = {group: committed_by(java, firth, group) for group in groups}
    for group in groups:
        wait_until(lambda: committed_by(java, firth, group) == dict.fromkeys(every_partition(topic), 3), 15, "all commits done")
    before = [standing(member) for both in groups.values() for member in both]
    if how == "kill":
        firth.kill9()
    else:
        firth.stop()
    firth.start()
    for group in groups:
        assert committed_by(java, firth, group) == dict.fromkeys(every_partition(topic), 3)
    values = publish(java, firth.bootstrap, topic, "after")
    for both in groups.values():
        all_read(both, values)
    kinds_of_members = [kind for kind in kinds for _ in range(2)]
    for kind, was, member in zip(kinds_of_members, before, (member for both in groups.values() for member in both)):
        assert standing(member) == was, f"{kind} was {was}, is {standing(member)}"


def standing(member):
    """All that a rebalance would change."""
    state = member.state()
    # Apache Kafka raises the epoch of a group that it loads, though it moves nothing.
    generation = None if servers.PEER_COMMAND else state["generation"]
    return member.name, state["assignment"], state["member_id"], generation, member.rebalances


def committed_by(java, server, group):
    return java.admin(server.bootstrap, "list_group_offsets", group=group)


def test_member_that_dies_is_replaced(node, peers, topic, fresh, members):
    """A member whose process ends without goodbye loses its partitions when its session is over."""
    from conftest import make_peer

    group = fresh("group")
    stays = peers("confluent-kafka").join(
        node.bootstrap, group, [topic], **{"session.timeout.ms": 6000, "partition.assignment.strategy": "range"}
    )
    members.append(stays)
    doomed = make_peer("java")
    range_assignor = "org.apache.kafka.clients.consumer.RangeAssignor"
    other = doomed.join(node.bootstrap, group, [topic], **{"session.timeout.ms": "6000", "partition.assignment.strategy": range_assignor})
    settled([stays, other], topic)
    doomed.close()
    wait_until(lambda: stays.assignment == every_partition(topic), REBALANCED, lambda: stays.state())
