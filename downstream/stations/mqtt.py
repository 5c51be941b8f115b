"""A client of an MQTT 5 broker that connects by itself, again and again, from a thread of paho's."""

import uuid

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from downstream.stations.broker import Broker

# A network that is cut is noticed after one and a half of it, by the broker too, which then publishes the last will.
KEEPALIVE_S = 5
CONNECT_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1, 10


def client_of(broker: Broker) -> Client:
    """It begins to connect with `loop_start()`. Its id is the same each time that it connects anew, so that a broker
    that has not noticed ends the former connection, last will and all, before this one begins."""
    client = Client(CallbackAPIVersion.VERSION2, f"heldout-{uuid.uuid4().hex[:15]}", protocol=MQTTv5)
    client.connect_timeout = CONNECT_S
    client.reconnect_delay_set(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    if broker.user:
        client.username_pw_set(broker.user, broker.password.value() if broker.password else None)
    if broker.has_tls:
        client.tls_set(str(broker.ca) if broker.ca else None)
    client.connect_async(*broker.address(), keepalive=KEEPALIVE_S, clean_start=True)
    return client
