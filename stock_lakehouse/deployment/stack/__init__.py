"""The parts of the CloudFormation template, a module each. template.py puts them together."""
