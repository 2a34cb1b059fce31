// The Java client as a child process: one JSON command a line on stdin, one JSON answer a line on stdout.
// Keys, values and header values travel as base64; null stays null. Commands run one after another; group members
// poll on threads of their own, because a consumer that is not polled leaves its group.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.*;

public class Agent {
    static final ObjectMapper JSON = new ObjectMapper();
    static final Map<String, Member> members = new ConcurrentHashMap<>();
    static final Map<String, Admin> admins = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String line; (line = commands.readLine()) != null; ) {
            Map<String, Object> answer = new HashMap<>();
            try {
                answer.put("ok", run(JSON.readTree(line)));
            } catch (Throwable thrown) {
                Throwable cause = thrown;
                while ((cause instanceof ExecutionException || cause.getClass() == KafkaException.class) && cause.getCause() != null) {
                    cause = cause.getCause();
                }
                answer.put("error", cause.getClass().getSimpleName());
                answer.put("message", String.valueOf(cause.getMessage()));
            }
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    static Object run(JsonNode command) throws Exception {
        return switch (command.get("do").asText()) {
            case "produce" -> produce(command);
            case "consume" -> consume(command);
            case "join" -> join(command);
            case "state" -> members.get(command.get("member").asText()).state();
            case "leave" -> members.remove(command.get("member").asText()).leave(command.path("remain").asBoolean());
            case "admin" -> admin(command);
            default -> throw new IllegalArgumentException("no such command: " + command);
        };
    }

    static Properties properties(JsonNode command) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", command.get("bootstrap").asText());
        command.path("config").fields().forEachRemaining(entry -> properties.put(entry.getKey(), entry.getValue().asText()));
        return properties;
    }

    static byte[] bytes(JsonNode node) {
        return node == null || node.isNull() ? null : Base64.getDecoder().decode(node.asText());
    }

    static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }

    /** Sends every record; answers for each {offset, timestamp} or {error}. */
    static Object produce(JsonNode command) throws Exception {
        Properties properties = properties(command);
        properties.putIfAbsent("linger.ms", "20");
        properties.putIfAbsent("delivery.timeout.ms", "30000");
        properties.putIfAbsent("request.timeout.ms", "15000");
        properties.put("compression.type", command.get("codec").asText());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer =
                new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            if (properties.containsKey("transactional.id")) {
                producer.initTransactions();
            }
            JsonNode partition = command.get("partition");
            for (JsonNode record : command.get("records")) {
                RecordHeaders headers = new RecordHeaders();
                for (JsonNode header : record.path("headers")) {
                    headers.add(header.get(0).asText(), bytes(header.get(1)));
                }
                JsonNode timestamp = record.get("timestamp");
                sent.add(producer.send(new ProducerRecord<>(command.get("topic").asText(),
                        partition == null || partition.isNull() ? null : partition.asInt(),
                        timestamp == null || timestamp.isNull() ? null : timestamp.asLong(),
                        bytes(record.get("key")), bytes(record.get("value")), headers)));
            }
            producer.flush();
            List<Object> answers = new ArrayList<>();
            for (Future<RecordMetadata> future : sent) {
                try {
                    RecordMetadata metadata = future.get();
                    answers.add(Map.of("offset", metadata.offset(), "timestamp", metadata.timestamp(), "partition", metadata.partition()));
                } catch (ExecutionException failed) {
                    answers.add(Map.of("error", failed.getCause().getClass().getSimpleName()));
                }
            }
            return answers;
        }
    }

    /** Reads from the beginning of one partition of each topic until every topic has given its count. */
    static Object consume(JsonNode command) {
        Properties properties = properties(command);
        properties.putIfAbsent("fetch.max.wait.ms", "100");
        Map<String, Integer> wanted = new HashMap<>();
        command.get("topics").fields().forEachRemaining(entry -> wanted.put(entry.getKey(), entry.getValue().asInt()));
        int partition = command.path("partition").asInt(0);
        Map<String, List<Object>> got = new HashMap<>();
        wanted.keySet().forEach(topic -> got.put(topic, new ArrayList<>()));
        long deadline = System.nanoTime() + Duration.ofSeconds(command.path("timeout").asInt(30)).toNanos();
        try (KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = wanted.keySet().stream().map(topic -> new TopicPartition(topic, partition)).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            while (wanted.entrySet().stream().anyMatch(entry -> got.get(entry.getKey()).size() < entry.getValue())
                    && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    got.get(record.topic()).add(plain(record));
                }
            }
        }
        return got;
    }

    static Map<String, Object> plain(ConsumerRecord<byte[], byte[]> record) {
        List<Object> headers = new ArrayList<>();
        for (Header header : record.headers()) {
            headers.add(Arrays.asList(header.key(), text(header.value())));
        }
        Map<String, Object> plain = new HashMap<>();
        plain.put("key", text(record.key()));
        plain.put("value", text(record.value()));
        plain.put("headers", headers);
        plain.put("timestamp", record.timestamp());
        plain.put("timestamp_type", record.timestampType().name);
        plain.put("offset", record.offset());
        plain.put("partition", record.partition());
        plain.put("topic", record.topic());
        return plain;
    }

    static Object join(JsonNode command) {
        Properties properties = properties(command);
        properties.put("group.id", command.get("group").asText());
        properties.put("enable.auto.commit", "false");
        properties.putIfAbsent("auto.offset.reset", "earliest");
        Member member = new Member(properties, command);
        members.put(command.get("member").asText(), member);
        member.start();
        return true;
    }

    /** A group member that polls, commits what it read, and remembers what it was given and lost. */
    static class Member extends Thread implements ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        final List<Object> events = new ArrayList<>();
        final List<Object> records = new ArrayList<>();
        List<String> assignment = List.of();
        String memberId = "";
        int generation = -1;
        String failure;
        volatile boolean stop;
        volatile boolean remain;

        Member(Properties properties, JsonNode command) {
            setDaemon(true);
            consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
            if (command.hasNonNull("pattern")) {
                consumer.subscribe(new SubscriptionPattern(command.get("pattern").asText()), this);
            } else {
                List<String> topics = new ArrayList<>();
                command.get("topics").forEach(topic -> topics.add(topic.asText()));
                consumer.subscribe(topics, this);
            }
        }

        static List<String> names(Collection<TopicPartition> partitions) {
            return partitions.stream().map(TopicPartition::toString).sorted().toList();
        }

        synchronized void event(String what, Collection<TopicPartition> partitions) {
            events.add(List.of(what, names(partitions)));
        }

        public void onPartitionsAssigned(Collection<TopicPartition> partitions) { event("assigned", partitions); }

        public void onPartitionsRevoked(Collection<TopicPartition> partitions) { event("revoked", partitions); }

        public void onPartitionsLost(Collection<TopicPartition> partitions) { event("lost", partitions); }

        @Override
        public void run() {
            try {
                while (!stop) {
                    ConsumerRecords<byte[], byte[]> polled = consumer.poll(Duration.ofMillis(100));
                    synchronized (this) {
                        polled.forEach(record -> records.add(plain(record)));
                    }
                    if (!polled.isEmpty()) {
                        try {
                            consumer.commitSync(Duration.ofSeconds(10));
                        } catch (CommitFailedException | org.apache.kafka.common.errors.RetriableException lost) {
                            event("commit failed", List.of());
                        }
                    }
                    synchronized (this) {
                        assignment = names(consumer.assignment());
                        memberId = consumer.groupMetadata().memberId();
                        generation = consumer.groupMetadata().generationId();
                    }
                }
            } catch (WakeupException woken) {
                // stop was asked for
            } catch (Throwable thrown) {
                synchronized (this) {
                    failure = thrown.getClass().getSimpleName() + ": " + thrown.getMessage();
                }
            }
            consumer.close(CloseOptions.timeout(Duration.ofSeconds(5)).withGroupMembershipOperation(remain
                    ? CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP : CloseOptions.GroupMembershipOperation.DEFAULT));
        }

        synchronized Object state() {
            Map<String, Object> state = new HashMap<>();
            state.put("assignment", assignment);
            state.put("events", new ArrayList<>(events));
            state.put("records", new ArrayList<>(records));
            state.put("member_id", memberId);
            state.put("generation", generation);
            state.put("error", failure);
            return state;
        }

        Object leave(boolean remain) throws InterruptedException {
            this.remain = remain;
            stop = true;
            join(20_000);
            return state();
        }
    }

    static Object admin(JsonNode command) throws Exception {
        String bootstrap = command.get("bootstrap").asText();
        Admin admin = admins.computeIfAbsent(bootstrap, address -> {
            Properties properties = properties(command);
            properties.put("default.api.timeout.ms", "20000");
            properties.put("request.timeout.ms", "10000");
            return Admin.create(properties);
        });
        return AdminCalls.call(admin, command.get("call").asText(), command);
    }
}
