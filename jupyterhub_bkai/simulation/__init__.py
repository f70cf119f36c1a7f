"""The live scheduler over recorded or made-up demand, in a time that passes as quickly as it can be computed."""
