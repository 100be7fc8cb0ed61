"""The device that the networks run on: which one it is, how it is set up, and which errors mean that it failed."""

from voicestyle.devices.choice import AUTO, DEVICES, DeviceError, asked_device, choose_device, usable_gpu
from voicestyle.devices.failures import device_failed, free_memory, is_out_of_memory, retry_out_of_memory
from voicestyle.devices.preparation import prepare_device

__all__ = [
    "AUTO",
    "DEVICES",
    "DeviceError",
    "asked_device",
    "choose_device",
    "device_failed",
    "free_memory",
    "is_out_of_memory",
    "prepare_device",
    "retry_out_of_memory",
    "usable_gpu",
]
