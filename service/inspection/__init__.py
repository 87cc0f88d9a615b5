"""Looks at uploaded files cheaply and safely, by their headers and listings alone; nothing of them is run or unpacked."""
