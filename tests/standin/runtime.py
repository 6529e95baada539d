"""cupy.cuda.runtime: what dtrain asks of the CUDA runtime."""

from __future__ import annotations

from typing import Any

from tests.standin import devices


def getDeviceProperties(device: int) -> dict[str, Any]:
    devices.set_device_check(device)
    return {"name": b"stand-in for CUDA", "totalGlobalMem": devices.TOTAL_MEMORY, "multiProcessorCount": 132, "major": 9, "minor": 0,
            "warpSize": 32, "maxThreadsPerBlock": 1024, "sharedMemPerBlock": 49152}  # fmt: skip


CONTENTS = {
    "CUDARuntimeError": devices.CUDARuntimeError,
    "getDeviceCount": lambda: devices.COUNT,
    "getDevice": devices.current,
    "setDevice": devices.set_device,
    "driverGetVersion": lambda: 12090,
    "runtimeGetVersion": lambda: 12090,
    "getDeviceProperties": getDeviceProperties,
    "memGetInfo": lambda: devices.Device().mem_info,
    "deviceCanAccessPeer": lambda device, peer: 0,
    "deviceSynchronize": lambda: devices.Device().synchronize(),
    "streamNonBlocking": 1,
    "streamDefault": 0,
}
