"""MQTT as the standards say it: raw packets of 3.1, 3.1.1 and 5.0 and foreign clients, against any broker.

Against Firth:           FIRTH_BIN=target/release/firth target/clients/venv/bin/python -m pytest -c clients/pytest.ini clients/mqtt -q
One file or one case:    ... -m pytest -c clients/pytest.ini clients/mqtt/test_retained.py -q -k replaces
Against mosquitto:       FIRTH_MQTT_PEER_COMMAND="python3 clients/mqtt/mosquitto.py" ... (a program called with PORT and DATA DIRECTORY)
Against a running one:   FIRTH_MQTT_PEER=127.0.0.1:1883 FIRTH_MQTT_PEER_WS=127.0.0.1:8083 ... (the second only where it has WebSocket)

FIRTH_MQTT_PEER_NAME (mosquitto unless said otherwise) is the name which `differs` knows the other broker by. The table of statements,
docs/reference/mqtt-conformance.md, is written by `python3 clients/mqtt/table.py`.
"""
