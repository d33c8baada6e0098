"""Throwaway Docker hosts for tests.

The public names, each imported when it is first used: pytest loads this package in every run of everybody who has it
installed, and a run without machines should not pay for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .breaking import Injection as Injection
    from .capture import Capture as Capture
    from .compose import Compose as Compose
    from .driver import Driver as Driver
    from .errors import BadSpec as BadSpec
    from .errors import CleanupFailed as CleanupFailed
    from .errors import CommandFailed as CommandFailed
    from .errors import ConnectFailed as ConnectFailed
    from .errors import DriverError as DriverError
    from .errors import DriverUnavailable as DriverUnavailable
    from .errors import EngineFailed as EngineFailed
    from .errors import LimitExceeded as LimitExceeded
    from .errors import MachineError as MachineError
    from .errors import MachineExists as MachineExists
    from .errors import MachineOff as MachineOff
    from .errors import NotRunning as NotRunning
    from .errors import ProvisionFailed as ProvisionFailed
    from .errors import StoreError as StoreError
    from .errors import TransferFailed as TransferFailed
    from .errors import UnknownDriver as UnknownDriver
    from .errors import UnknownMachine as UnknownMachine
    from .errors import Unsupported as Unsupported
    from .errors import UsageError as UsageError
    from .errors import WaitTimeout as WaitTimeout
    from .fault import Fault as Fault
    from .faults.clock import ClockSkew as ClockSkew
    from .faults.disk import DiskError as DiskError
    from .faults.disk import DiskSlow as DiskSlow
    from .faults.engine import EngineHang as EngineHang
    from .faults.engine import EngineKill as EngineKill
    from .faults.engine import EngineRestart as EngineRestart
    from .faults.network import Corrupt as Corrupt
    from .faults.network import Delay as Delay
    from .faults.network import DnsFailure as DnsFailure
    from .faults.network import Duplicate as Duplicate
    from .faults.network import Loss as Loss
    from .faults.network import Partition as Partition
    from .faults.network import Rate as Rate
    from .faults.network import Reorder as Reorder
    from .faults.power import Crash as Crash
    from .faults.power import Kill as Kill
    from .faults.power import Pause as Pause
    from .faults.power import Restart as Restart
    from .faults.resources import CpuStress as CpuStress
    from .faults.resources import DiskFull as DiskFull
    from .faults.resources import MemoryPressure as MemoryPressure
    from .hookspecs import hookimpl as hookimpl
    from .lab import Lab as Lab
    from .machine import Attachment as Attachment
    from .machine import Machine as Machine
    from .model import Access as Access
    from .model import Address as Address
    from .model import Id as Id
    from .model import Incident as Incident
    from .model import Isolation as Isolation
    from .model import Network as Network
    from .model import Record as Record
    from .model import Result as Result
    from .model import Seed as Seed
    from .model import Seen as Seen
    from .model import Spec as Spec
    from .model import State as State
    from .model import Trouble as Trouble
    from .options import option as option
    from .options import size as size
    from .plan import Link as Link
    from .plan import Net as Net
    from .plan import Role as Role
    from .plan import Topology as Topology
    from .plugin.machines import MachineFactory as MachineFactory
    from .plugin.machines import Machines as Machines
    from .plugins import Registry as Registry
    from .service import HostPort as HostPort
    from .swarm import Node as Node
    from .swarm import Swarm as Swarm
    from .topology import bridge as bridge
    from .topology import groups as groups
    from .topology import halves as halves
    from .topology import isolate as isolate
    from .topology import majorities_ring as majorities_ring
    from .topology import one_way as one_way

_HOMES = {
    "Access": "model",
    "Address": "model",
    "Attachment": "machine",
    "BadSpec": "errors",
    "Capture": "capture",
    "CleanupFailed": "errors",
    "ClockSkew": "faults.clock",
    "CommandFailed": "errors",
    "Compose": "compose",
    "ConnectFailed": "errors",
    "Corrupt": "faults.network",
    "CpuStress": "faults.resources",
    "Crash": "faults.power",
    "Delay": "faults.network",
    "DiskError": "faults.disk",
    "DiskFull": "faults.resources",
    "DiskSlow": "faults.disk",
    "DnsFailure": "faults.network",
    "Driver": "driver",
    "DriverError": "errors",
    "DriverUnavailable": "errors",
    "Duplicate": "faults.network",
    "EngineFailed": "errors",
    "EngineHang": "faults.engine",
    "EngineKill": "faults.engine",
    "EngineRestart": "faults.engine",
    "Fault": "fault",
    "HostPort": "service",
    "Id": "model",
    "Incident": "model",
    "Injection": "breaking",
    "Isolation": "model",
    "Kill": "faults.power",
    "Lab": "lab",
    "LimitExceeded": "errors",
    "Link": "plan",
    "Loss": "faults.network",
    "Machine": "machine",
    "MachineError": "errors",
    "MachineExists": "errors",
    "MachineFactory": "plugin.machines",
    "MachineOff": "errors",
    "Machines": "plugin.machines",
    "MemoryPressure": "faults.resources",
    "Net": "plan",
    "Network": "model",
    "Node": "swarm",
    "NotRunning": "errors",
    "Partition": "faults.network",
    "Pause": "faults.power",
    "ProvisionFailed": "errors",
    "Rate": "faults.network",
    "Record": "model",
    "Registry": "plugins",
    "Reorder": "faults.network",
    "Restart": "faults.power",
    "Result": "model",
    "Role": "plan",
    "Seed": "model",
    "Seen": "model",
    "Spec": "model",
    "State": "model",
    "StoreError": "errors",
    "Swarm": "swarm",
    "Topology": "plan",
    "TransferFailed": "errors",
    "Trouble": "model",
    "UnknownDriver": "errors",
    "UnknownMachine": "errors",
    "Unsupported": "errors",
    "UsageError": "errors",
    "WaitTimeout": "errors",
    "bridge": "topology",
    "groups": "topology",
    "halves": "topology",
    "hookimpl": "hookspecs",
    "isolate": "topology",
    "majorities_ring": "topology",
    "one_way": "topology",
    "option": "options",
    "size": "options",
}

__all__ = [
    "Access",
    "Address",
    "Attachment",
    "BadSpec",
    "Capture",
    "CleanupFailed",
    "ClockSkew",
    "CommandFailed",
    "Compose",
    "ConnectFailed",
    "Corrupt",
    "CpuStress",
    "Crash",
    "Delay",
    "DiskError",
    "DiskFull",
    "DiskSlow",
    "DnsFailure",
    "Driver",
    "DriverError",
    "DriverUnavailable",
    "Duplicate",
    "EngineFailed",
    "EngineHang",
    "EngineKill",
    "EngineRestart",
    "Fault",
    "HostPort",
    "Id",
    "Incident",
    "Injection",
    "Isolation",
    "Kill",
    "Lab",
    "LimitExceeded",
    "Link",
    "Loss",
    "Machine",
    "MachineError",
    "MachineExists",
    "MachineFactory",
    "MachineOff",
    "Machines",
    "MemoryPressure",
    "Net",
    "Network",
    "Node",
    "NotRunning",
    "Partition",
    "Pause",
    "ProvisionFailed",
    "Rate",
    "Record",
    "Registry",
    "Reorder",
    "Restart",
    "Result",
    "Role",
    "Seed",
    "Seen",
    "Spec",
    "State",
    "StoreError",
    "Swarm",
    "Topology",
    "TransferFailed",
    "Trouble",
    "UnknownDriver",
    "UnknownMachine",
    "Unsupported",
    "UsageError",
    "WaitTimeout",
    "bridge",
    "groups",
    "halves",
    "hookimpl",
    "isolate",
    "majorities_ring",
    "one_way",
    "option",
    "size",
]


if not TYPE_CHECKING:  # a type checker would take every name for one that there is

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        found: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
