"""The wire format: hrefs and documents in Pulp's form, in one place for REST, commands and XCom."""
