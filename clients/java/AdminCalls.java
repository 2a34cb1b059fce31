// Calls of the Java Admin client, by name, with plain JSON in and out.

import com.fasterxml.jackson.databind.JsonNode;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.*;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.config.ConfigResource;

class AdminCalls {
    static Object call(Admin admin, String name, JsonNode ask) throws Exception {
        return switch (name) {
            case "create_topic" -> createTopic(admin, ask);
            case "delete_topic" -> done(admin.deleteTopics(List.of(topic(ask))).all().get());
            case "list_topics" -> new TreeSet<>(admin.listTopics().names().get());
            case "describe_topic" -> describeTopic(admin, ask);
            case "create_partitions" -> done(admin.createPartitions(Map.of(topic(ask), 
                            NewPartitions.increaseTo(ask.get("partitions").asInt())),
                    new CreatePartitionsOptions().validateOnly(ask.path("validate_only").asBoolean())).all().get());
            case "describe_configs" -> describeConfigs(admin, ask);
            case "alter_configs" -> alterConfigs(admin, ask);
            case "delete_records" -> {
                TopicPartition partition = partition(ask);
                yield admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(ask.get("before").asLong())))
                        .lowWatermarks().get(partition).get().lowWatermark();
            }
            case "list_offsets" -> listOffsets(admin, ask);
            case "describe_cluster" -> {
                DescribeClusterResult cluster = admin.describeCluster();
                yield Map.of("id", cluster.clusterId().get(), "controller", cluster.controller().get().id(),
                        "nodes", cluster.nodes().get().stream().map(node -> node.id() + "@" + node.host() + ":" + node.port()).toList());
            }
            case "describe_log_dirs" -> admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1).values().stream()
                    .flatMap(dir -> dir.replicaInfos().keySet().stream()).map(TopicPartition::toString)
                    .filter(text -> text.startsWith(topic(ask))).sorted().toList();
            case "describe_producers" -> {
                TopicPartition partition = partition(ask);
                yield admin.describeProducers(List.of(partition)).partitionResult(partition).get().activeProducers().stream()
                        .map(producer -> Map.of("id", producer.producerId(), "epoch", producer.producerEpoch(),
                                "sequence", producer.lastSequence())).toList();
            }
            case "list_transactions" -> admin.listTransactions().all().get().size();
            case "list_reassignments" -> admin.listPartitionReassignments().reassignments().get().size();
            case "elect_leaders" -> {
                Map<TopicPartition, Optional<Throwable>> elected =
                        admin.electLeaders(ElectionType.PREFERRED, Set.of(partition(ask))).partitions().get();
                yield elected.values().stream().map(error -> error.map(e -> e.getClass().getSimpleName()).orElse("")).toList();
            }
            case "describe_acls" -> admin.describeAcls(AclBindingFilter.ANY).values().get().size();
            case "list_config_resources" -> admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions())
                    .all().get().stream().map(ConfigResource::name).sorted().toList();
            default -> groups(admin, name, ask);
        };
    }

    static Object groups(Admin admin, String name, JsonNode ask) throws Exception {
        String group = ask.path("group").asText();
        switch (name) {
            case "list_groups": {
                Map<String, Object> groups = new TreeMap<>();
                for (GroupListing listing : admin.listGroups().all().get()) {
                    groups.put(listing.groupId(), Map.of("type", listing.type().map(Enum::name).orElse(""),
                            "protocol", listing.protocol(), "state", listing.groupState().map(Enum::name).orElse("")));
                }
                return groups;
            }
            case "describe_group": {
                ConsumerGroupDescription description = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                List<Object> members = new ArrayList<>();
                for (MemberDescription member : description.members()) {
                    Map<String, Object> plain = new HashMap<>();
                    plain.put("member_id", member.consumerId());
                    plain.put("client_id", member.clientId());
                    plain.put("instance", member.groupInstanceId().orElse(null));
                    plain.put("assignment", member.assignment().topicPartitions().stream().map(TopicPartition::toString).sorted().toList());
                    members.add(plain);
                }
                return Map.of("state", description.groupState().name(), "type", description.type().name(),
                        "assignor", description.partitionAssignor(), "members", members,
                        "epoch", description.groupEpoch().orElse(-1), "coordinator", description.coordinator().id());
            }
            case "delete_group":
                return done(admin.deleteConsumerGroups(List.of(group)).all().get());
            case "list_group_offsets":
                return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().entrySet().stream()
                        .filter(entry -> entry.getValue() != null)
                        .collect(Collectors.toMap(entry -> entry.getKey().toString(), entry -> entry.getValue().offset()));
            case "alter_group_offsets":
                return done(admin.alterConsumerGroupOffsets(group,
                        Map.of(partition(ask), new OffsetAndMetadata(ask.get("offset").asLong(), ask.path("metadata").asText(""))))
                        .all().get());
            case "delete_group_offsets":
                return done(admin.deleteConsumerGroupOffsets(group, Set.of(partition(ask))).all().get());
            case "remove_member": {
                MemberToRemove member = new MemberToRemove(ask.get("instance").asText());
                return done(admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions(Set.of(member)))
                        .all().get());
            }
            default:
                throw new IllegalArgumentException("no such call: " + name);
        }
    }

    static Object done(Void nothing) {
        return true;
    }

    static String topic(JsonNode ask) {
        return ask.path("topic").asText();
    }

    static TopicPartition partition(JsonNode ask) {
        return new TopicPartition(topic(ask), ask.path("partition").asInt(0));
    }

    static Object createTopic(Admin admin, JsonNode ask) throws Exception {
        NewTopic topic = new NewTopic(topic(ask), Optional.ofNullable(ask.get("partitions")).map(JsonNode::asInt),
                Optional.ofNullable(ask.get("replication")).map(node -> (short) node.asInt()));
        Map<String, String> configs = new HashMap<>();
        ask.path("configs").fields().forEachRemaining(entry -> configs.put(entry.getKey(), entry.getValue().asText()));
        CreateTopicsResult result = admin.createTopics(List.of(topic.configs(configs)),
                new CreateTopicsOptions().validateOnly(ask.path("validate_only").asBoolean()));
        result.all().get();
        return Map.of("partitions", result.numPartitions(topic(ask)).get(), "replication", result.replicationFactor(topic(ask)).get(),
                "id", result.topicId(topic(ask)).get().toString());
    }

    static Object describeTopic(Admin admin, JsonNode ask) throws Exception {
        TopicDescription description = admin.describeTopics(List.of(topic(ask))).allTopicNames().get().get(topic(ask));
        return Map.of("id", description.topicId().toString(), "internal", description.isInternal(),
                "partitions", description.partitions().stream().map(info -> Map.of(
                        "partition", info.partition(), "leader", info.leader().id(),
                        "replicas", info.replicas().size(), "isr", info.isr().size())).toList());
    }

    static ConfigResource resource(JsonNode ask) {
        return new ConfigResource(ConfigResource.Type.valueOf(ask.path("resource").asText("TOPIC")),
                ask.hasNonNull("name") ? ask.get("name").asText() : topic(ask));
    }

    static Object describeConfigs(Admin admin, JsonNode ask) throws Exception {
        Map<String, Object> configs = new TreeMap<>();
        Config config = admin.describeConfigs(List.of(resource(ask)),
                        new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true))
                .all().get().get(resource(ask));
        for (ConfigEntry entry : config.entries()) {
            Map<String, Object> plain = new HashMap<>();
            plain.put("value", entry.value());
            plain.put("source", entry.source().name());
            plain.put("type", entry.type().name());
            plain.put("default", entry.isDefault());
            plain.put("read_only", entry.isReadOnly());
            configs.put(entry.name(), plain);
        }
        return configs;
    }

    /** `set` holds name to value; null takes the setting away. `append` and `subtract` work on list settings. */
    static Object alterConfigs(Admin admin, JsonNode ask) throws Exception {
        List<AlterConfigOp> operations = new ArrayList<>();
        ask.path("set").fields().forEachRemaining(entry -> operations.add(entry.getValue().isNull()
                ? new AlterConfigOp(new ConfigEntry(entry.getKey(), ""), AlterConfigOp.OpType.DELETE)
                : new AlterConfigOp(new ConfigEntry(entry.getKey(), entry.getValue().asText()), AlterConfigOp.OpType.SET)));
        ask.path("append").fields().forEachRemaining(entry -> operations.add(
                new AlterConfigOp(new ConfigEntry(entry.getKey(), entry.getValue().asText()), AlterConfigOp.OpType.APPEND)));
        ask.path("subtract").fields().forEachRemaining(entry -> operations.add(
                new AlterConfigOp(new ConfigEntry(entry.getKey(), entry.getValue().asText()), AlterConfigOp.OpType.SUBTRACT)));
        return done(admin.incrementalAlterConfigs(Map.of(resource(ask), operations),
                new AlterConfigsOptions().validateOnly(ask.path("validate_only").asBoolean())).all().get());
    }

    static Object listOffsets(Admin admin, JsonNode ask) throws Exception {
        OffsetSpec spec = switch (ask.get("at").asText()) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            case "max_timestamp" -> OffsetSpec.maxTimestamp();
            case "earliest_local" -> OffsetSpec.earliestLocal();
            case "latest_tiered" -> OffsetSpec.latestTiered();
            default -> OffsetSpec.forTimestamp(ask.get("at").asLong());
        };
        ListOffsetsResult.ListOffsetsResultInfo info =
                admin.listOffsets(Map.of(partition(ask), spec)).partitionResult(partition(ask)).get();
        return List.of(info.offset(), info.timestamp());
    }
}
