"""The wire: hrefs and documents in Pulp's shapes, in one place for REST, commands and XCom."""
