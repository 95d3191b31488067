# What `cmake --install` lays down: library, headers and the package that find_package(deep_gemm) reads; with the command
# line, its program as the component `cli`.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/deep_gemm)
install(TARGETS deep_gemm EXPORT deep_gemm_library COMPONENT deep_gemm INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/deep_gemm DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT deep_gemm)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT deep_gemm)
install(EXPORT deep_gemm_library NAMESPACE deep_gemm:: FILE deep_gemm-library.cmake DESTINATION ${package_dir}
  COMPONENT deep_gemm)
if(TARGET deep_gemm_cli)
  set_target_properties(deep_gemm_cli PROPERTIES EXPORT_NAME cli)
  install(TARGETS deep_gemm_cli EXPORT deep_gemm_cli COMPONENT deep_gemm_cli)
  install(EXPORT deep_gemm_cli NAMESPACE deep_gemm:: FILE deep_gemm-cli.cmake DESTINATION ${package_dir}
    COMPONENT deep_gemm_cli)
endif()

configure_package_config_file(cmake/deep_gemm-config.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/deep_gemm-config.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/deep_gemm-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/deep_gemm-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/deep_gemm-config-version.cmake
  DESTINATION ${package_dir} COMPONENT deep_gemm)
