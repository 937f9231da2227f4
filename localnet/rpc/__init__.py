"""
Solana's JSON-RPC over a `Chain`: methods by subject, their parameters checked, their answers in Solana's shapes.

Sockets are `localnet.server`'s; nothing here knows how a request came in.
"""

from localnet.rpc.dispatch import Dispatcher, ExtraMethod
from localnet.rpc.errors import RpcError, invalid_params

__all__ = ["Dispatcher", "ExtraMethod", "RpcError", "invalid_params"]
