"""The faces of the service over HTTP: parse, call, render. One file per noun."""
