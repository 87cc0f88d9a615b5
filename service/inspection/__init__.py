"""Looks at uploads cheaply and safely, by headers and listings alone; nothing is run or unpacked."""
