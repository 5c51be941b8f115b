"""A Modbus TCP server that a PLC polls: the newest verdict of each station, which nobody can write.

Coils, or discrete inputs: 0 pass, 1 fail, 2 busy, 3 fault.
Holding registers, or input registers; two make 32 bits, the high word first:

0-1  score x 1000, signed; -2147483648 for none      6  heartbeat, from 0 to 65535 and round
2-3  threshold x 1000, signed; likewise              7  the coils as bits: 1 pass, 2 fail, 4 busy, 8 fault
4-5  number of the part
"""

import math
from functools import partial

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from downstream.stations.contract import Sink, StationState, Surroundings
from downstream.stations.lamps import Lamps, Shown
from downstream.stations.loop import Loop
from downstream.stations.options import Address
from downstream.stations.signal import Signal
from downstream.stations.sinks import config
from pretrain.command import UserError

COILS, REGISTERS = 16, 8
READ_COILS, READ_INPUTS = 1, 2
READS = (READ_COILS, READ_INPUTS, 3, 4)
NOTHING = -(1 << 31)


class ModbusSink(Sink):
    """Fulfills the contract. Every answer is made when it is asked for, so that nothing old is ever read."""

    def __init__(self, options: config.Modbus, surroundings: Surroundings) -> None:
        self._options, self.port = options, options.port
        self._lamps = {station: Lamps(options.fresh_s) for station in surroundings.stations}
        self._loop, self._server = Loop("modbus"), None

    def open(self) -> None:
        self._loop.start()
        try:
            self._loop.run(self._listen())
        except (OSError, RuntimeError):
            address = Address(self._options.host, self._options.port)
            raise UserError(
                f"the Modbus server cannot listen at {address}: is the port taken, or below 1024 and not yours?"
            ) from None

    def send(self, signal: Signal) -> None:
        self._lamps[signal.station].take(signal)

    def show(self, state: StationState) -> None:
        self._lamps[state.station].show(state)

    def close(self) -> None:
        if self._server is not None:
            self._loop.run(self._server.shutdown())
            self._server = None
        self._loop.stop()

    async def _listen(self) -> None:
        lamps = [*self._lamps.values()]
        # Of one station everybody reads; of several each is a unit, and another unit's number reads nothing.
        devices = [_device(0, lamps[0])] if len(lamps) == 1 else [_device(n, each) for n, each in enumerate(lamps, 1)]
        self._server = ModbusTcpServer(devices, address=(self._options.host, self._options.port))
        await self._server.serve_forever(background=True)
        self.port = self._server.transport.sockets[0].getsockname()[1]


def _device(unit: int, lamps: Lamps) -> SimDevice:
    def bits() -> list[SimData]:
        return [SimData(0, values=[False] * COILS, datatype=DataType.BITS)]

    def words() -> list[SimData]:
        return [SimData(0, count=REGISTERS, datatype=DataType.REGISTERS)]

    return SimDevice(unit, (bits(), bits(), words(), words()), action=partial(_answer, lamps))


async def _answer(
    lamps: Lamps, function: int, start: int, address: int, count: int, registers: list[int], written: list | None
) -> ExcCodes | None:
    """Puts what is so just now where pymodbus answers from."""
    if written is not None or function not in READS:
        return ExcCodes.ILLEGAL_FUNCTION
    shown = lamps.shown()
    if function in (READ_COILS, READ_INPUTS):
        registers[0] = bits_of(shown)
    else:
        registers[:REGISTERS] = registers_of(shown)
    return None


def bits_of(shown: Shown) -> int:
    return shown.passes | shown.fails << 1 | shown.busy << 2 | shown.faults << 3


def registers_of(shown: Shown) -> list[int]:
    signal = shown.signal
    numbers = [_thousandths(signal and signal.score), _thousandths(signal and signal.threshold),
               signal.part if signal else 0]  # fmt: skip
    words = [word for number in numbers for word in (number >> 16 & 0xFFFF, number & 0xFFFF)]
    return [*words, shown.heartbeat & 0xFFFF, bits_of(shown)]


def _thousandths(value: float | None) -> int:
    """As near as 32 bits come to it."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return max(NOTHING + 1, min(-NOTHING - 1, round(1000 * value)))
